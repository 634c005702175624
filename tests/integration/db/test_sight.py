"""What a limited caller's statements find and lock, beneath the web."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select

from db.models import FlaggedOutput
from db.reading import reader, selection
from db.session import Database
from db.sight import Limits, Sight, see_only
from tests.integration.db.builders import accept, count, record
from wherefrom.records import AuditFilter


@pytest.fixture
def _limited() -> Iterator[None]:
    """Statements see the outputs of the producer `mine` only."""
    yield
    see_only(None)


def _see_mine() -> None:
    see_only(Sight(Limits(producers=("mine",))))


@pytest.mark.parametrize(
    "migrated_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
@pytest.mark.usefixtures("_limited")
def test_what_a_limited_caller_locks_is_locked(db: Database) -> None:
    """PostgreSQL locks nothing of a WITH part, and says nothing: two people would be given the same item of a queue."""
    accept(db, record(1), record(2), producer="mine")
    accept(db, record(3), producer="theirs")
    _see_mine()
    free = select(FlaggedOutput.id).order_by(FlaggedOutput.id).limit(1).with_for_update(skip_locked=True)
    with db.writing() as one, db.writing() as other, db.writing() as third:
        taken = [session.scalar(free) for session in (one, other, third)]
    assert len(set(taken[:2])) == 2, taken
    assert taken[2] is None, "nothing of the others"
    assert count(db, FlaggedOutput) == 2


@pytest.mark.usefixtures("_limited")
def test_a_search_finds_its_own_behind_many_of_others(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look-up ends after so many texts, and those of others must not use that number up."""
    monkeypatch.setattr(selection, "FEW", 3)
    monkeypatch.setattr(selection, "LOOKED_THROUGH", (0, 0))
    accept(db, *(record(number, completion="tulip") for number in range(10)), producer="theirs")
    accept(db, *(record(number, completion="tulip") for number in range(10, 12)), producer="mine")
    _see_mine()
    for wanted in ({"text": "tulip"}, {"in_output": "tulip"}):
        page = reader.list_audits(db, AuditFilter.model_validate(wanted), limit=10)
        assert len(page.items) == 2, wanted
