"""Benjamini-Hochberg over a listing: the whole of it, whatever the page, on both engines."""

from typing import Any

import pytest
from sqlalchemy import update

from db.clock import db_after
from db.models import Audit, ListingFactsRow
from db.parts import stretches
from db.reading import asked, listings, reader, support
from db.session import Database
from tests.all_parts import all_parts
from tests.integration.db.builders import accept, answered, attribution, record, recorded_statements
from wherefrom.records import AuditFilter, Supported
from wherefrom.statistics import DEFAULT_FDR, benjamini_hochberg

BY_SUPPORT = AuditFilter(support=Supported.SUPPORTED)
P_VALUES = (0.5, 0.002, 0.03, None, 0.8, 0.02, 0.004, None, 0.3)


@pytest.fixture
def listing(db: Database, bundle_id: int) -> Database:
    """Nine answered audits, two of them without calibration, and a pending one."""
    for number, p in enumerate(P_VALUES):
        reason = "policy" if number < 6 else "tone"
        answered(db, bundle_id, record(number, reason=reason), answer=attribution(conformal_p=p))
    accept(db, record(99))
    return db


def _supported(db: Database, filters: AuditFilter, level: float) -> dict[float | None, bool | None]:
    """Whether each audit of the listing is supported, by its p."""
    found = support.judge(db, filters, level)
    page = reader.list_audits(db, filters, limit=100)
    return {one.conformal_p: one.supported for one in support.marked(page.items, found)}


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.9])
def test_the_listing_is_judged_as_a_whole(listing: Database, level: float) -> None:
    """The same audits pass as by the rule over all p-values; those without calibration are not judged."""
    known = [p for p in P_VALUES if p is not None]
    expected: dict[float | None, bool | None] = dict(
        zip(known, benjamini_hochberg(known, level), strict=True)
    )
    assert _supported(listing, AuditFilter(), level) == {**expected, None: None}
    found = support.judge(listing, AuditFilter(), level)
    assert (found.supported, found.judged, found.uncalibrated) == (sum(map(bool, expected.values())), 7, 2)


def test_parts_come_to_what_the_whole_does(listing: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large listing is judged some audits at a time."""
    monkeypatch.setattr("db.parts.PART", 2)
    assert len(list(support.judging(listing, AuditFilter(), 0.1))) == 5
    for filters in (AuditFilter(), AuditFilter(flag_reason="policy")):
        assert all_parts(support.judging(listing, filters, 0.1)) == support.judge(listing, filters, 0.1)
    assert len(list(stretches(listing, Audit.id, rows=2))) == 5


def test_a_large_listing_by_support_is_worked_out_in_parts(
    listing: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No statement of the sweeper judges all audits at once, whether or not the page asks for a level of its own."""
    expected = support.judge(listing, AuditFilter(), DEFAULT_FDR).supported
    for name, value in {
        "db.parts.PART": 2,
        "db.reading.listings.SMALL": 1,
        "db.reading.selection.FEW": 1,
    }.items():
        monkeypatch.setattr(name, value)
    assert listings.facts(listing, BY_SUPPORT, wait=False) is None
    work = listings.rounds(listing)
    with recorded_statements() as statements:
        while not work.go_on():
            pass
    looked = [one for one in statements if "conformal_p" in one]
    assert len(looked) > 5
    assert all("BETWEEN" in one for one in looked)
    found = listings.facts(listing, BY_SUPPORT, wait=False)
    assert found is not None
    assert (found.matching, found.support) == (expected, None)
    assert expected == 4


def test_without_a_sweeper_one_of_those_who_ask_works_it_out(
    listing: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half a minute, and it is kept for the others, however quick it was; meanwhile they are told that nothing is known."""
    for name in ("db.reading.listings.SMALL", "db.reading.selection.FEW"):
        monkeypatch.setattr(name, 1)
    monkeypatch.setattr(listings, "KEPT_FROM_S", 60.0)
    wanted = AuditFilter(flag_reason="policy")
    assert listings.facts(listing, wanted, wait=False) is None
    with listing.writing() as session:
        session.execute(update(ListingFactsRow).values(first_asked_at=db_after(-2 * asked.PATIENCE_S)))
    work_out, told = listings._work_out, []

    def worked_out(db: Database, *given: Any, **named: Any) -> Any:
        told.append(listings.facts(db, wanted, wait=False))
        return work_out(db, *given, **named)

    monkeypatch.setattr(listings, "_work_out", worked_out)
    found = listings.facts(listing, wanted, wait=False)
    assert found is not None
    assert told == [None]
    assert listings.facts(listing, wanted, wait=False) == found
    assert len(told) == 1


def test_a_filter_changes_the_question(listing: Database) -> None:
    """Fewer tests, another limit: the p of .03 passes among five but not among seven at 4 %."""
    assert _supported(listing, AuditFilter(flag_reason="policy"), 0.055)[0.03]
    assert not _supported(listing, AuditFilter(flag_reason="tone"), 0.001)[0.004]


def test_the_page_does_not_change_the_answer(listing: Database) -> None:
    """A page of two audits is judged like the listing that it is cut from."""
    found = support.judge(listing, AuditFilter(), 0.1)
    page = reader.list_audits(listing, AuditFilter(), limit=3)
    whole = _supported(listing, AuditFilter(), 0.1)
    for one in support.marked(page.items, found):
        assert one.supported == whole[one.conformal_p]


def test_a_listing_without_calibration_says_so(db: Database, bundle_id: int) -> None:
    """Nothing is judged, and the text says why; an empty listing says that too."""
    assert "No audit of this listing has been answered yet" in support.judge(db, AuditFilter(), 0.1).text()
    answered(db, bundle_id, record())
    found = support.judge(db, AuditFilter(), 0.1)
    assert (found.supported, found.judged, found.uncalibrated, found.limit) == (0, 0, 1, None)
    assert "its bundles have no calibration" in found.text()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (AuditFilter(top_source="source-0"), 2),
        (AuditFilter(source="source-0", text="answer"), 3),  # these are looked up first
    ],
)
def test_two_statements(listing: Database, filters: AuditFilter, expected: int) -> None:
    """However long the listing."""
    with recorded_statements() as statements:
        support.judge(listing, filters, 0.1)
    assert len(statements) == expected
