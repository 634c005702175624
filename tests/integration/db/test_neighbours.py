"""What stands beside an audit and beside a training example, on both engines."""

import pytest

from db.reading import neighbours, reader
from db.session import Database
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    draft,
    example,
    record,
    recorded_statements,
)
from wherefrom.errors import NotFound
from wherefrom.records import AuditFilter, AuditNeighbours, AuditOrder


def test_the_way_follows_the_filters(db: Database, bundle_id: int) -> None:
    """Newest first, only what the filter lets through, none beyond the ends; also for an audit that the list does not hold."""
    for number in range(4):
        accept(db, record(number, reason="refund" if number % 2 else "tone"))
    everything, refunds = AuditFilter(), AuditFilter(flag_reason="refund")
    assert neighbours.beside_audit(db, everything, 2) == AuditNeighbours(before=3, behind=1)
    assert neighbours.beside_audit(db, refunds, 2) == AuditNeighbours(before=4, behind=None)
    assert neighbours.beside_audit(db, refunds, 3) == AuditNeighbours(before=4, behind=2)
    assert neighbours.beside_audit(db, everything, 4) == AuditNeighbours(before=None, behind=3)
    assert neighbours.beside_audit(db, everything, 99) == AuditNeighbours()
    oldest = neighbours.beside_audit(db, everything, 2, order=AuditOrder.OLDEST)
    assert oldest == AuditNeighbours(before=1, behind=3)
    assert neighbours.beside_audit(db, everything, 2, order=AuditOrder.SCORE) == AuditNeighbours(), (
        "no score yet"
    )


def test_the_same_first_citation(db: Database, bundle_id: int) -> None:
    """Only audits that cite it first, newest first, without the one at hand."""
    first, second = (
        attribution(draft(1, example(0)), draft(2, example(1))),
        attribution(draft(1, example(1)), draft(2, example(0))),
    )
    answered(db, bundle_id, record(1), record(2), record(3), answer=first)
    answered(db, bundle_id, record(4), answer=second)
    cited = reader.get_audit(db, 1).citations[0].training_example_id
    found = neighbours.same_first_citation(db, cited, beside=2, limit=5)
    assert [one.audit_id for one in found] == [3, 1]
    assert len(neighbours.same_first_citation(db, cited, beside=2, limit=1)) == 1


def test_around_an_example(db: Database, bundle_id: int) -> None:
    """The rows before and behind it in its corpus, and the near-duplicates that a citation told; a constant number of statements."""
    alike = draft(1, example(2)).model_copy(update={"alike": ("ex-00000", "ex-00004", "gone")})
    answered(db, bundle_id, record(1), answer=attribution(alike))
    cited = reader.get_audit(db, 1).citations[0]
    assert cited.alike == ("ex-00000", "ex-00004", "gone")
    with recorded_statements() as statements:
        found = neighbours.beside_example(db, cited.training_example_id)
    assert len(statements) == 4
    assert found.row == 2
    assert [one.row for one in found.before] == [0, 1]
    assert [one.row for one in found.behind] == [3, 4]
    assert [one.example_id for one in found.alike] == ["ex-00000", "ex-00004"]
    with pytest.raises(NotFound):
        reader.get_example(db, 999)
    assert neighbours.beside_example(db, 999).before == ()
