"""The similarity vector of an output is stored with its answer and erased with its text, on both engines."""

from sqlalchemy import delete, select

from db.models import FlaggedText, OutputVector
from db.queues.audit_queue import AuditQueue, Finished
from db.remedies import hypotheticals
from db.session import Database
from tests.integration.db.builders import (
    accept,
    answered,
    claim_one,
    five_citations,
    record,
    recorded_statements,
)
from wherefrom.records import HypotheticalRequest

ANSWER = five_citations().model_copy(update={"vector": b"\x01\x7f\x81\x00"})


def stored(db: Database) -> dict[int, bytes]:
    """The vectors by output."""
    with db.reading() as session:
        return {
            row.flagged_output_id: row.vector
            for row in session.execute(select(OutputVector.flagged_output_id, OutputVector.vector))
        }


def erase(db: Database, output_id: int) -> None:
    """Erase a text as an operator does."""
    with db.writing() as session:
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == output_id))


def test_it_comes_with_the_answer_and_goes_with_the_text(db: Database, bundle_id: int) -> None:
    """Byte for byte, two statements for a whole pack; no other vector is touched."""
    accept(db, record(1), record(2))
    batch = AuditQueue(db).claim(bundle_id, owner="w", limit=2, lease_s=60)
    assert batch is not None
    with recorded_statements() as statements:
        AuditQueue(db).finish([Finished(one, ANSWER, 0.5) for one in batch.audits])
    assert sum("output_vector" in one for one in statements) == 1
    assert stored(db) == {1: ANSWER.vector, 2: ANSWER.vector}
    erase(db, 1)
    assert stored(db) == {2: ANSWER.vector}


def test_an_erased_text_gets_no_vector(db: Database, bundle_id: int) -> None:
    """The text went while a worker had the audit: the answer is stored, the vector is not."""
    accept(db, record(1))
    claimed = claim_one(db, bundle_id)
    erase(db, 1)
    assert AuditQueue(db).finish([Finished(claimed, ANSWER, 0.5)]) == {1}
    assert stored(db) == {}


def test_what_was_not_said_has_none(db: Database, bundle_id: int) -> None:
    """A hypothetical output is no ground for grouping; an engine without vectors stores none."""
    answered(db, bundle_id, record(1))
    hypotheticals.suppose(db, 1, HypotheticalRequest(completion="Never."), producer="local")
    AuditQueue(db).finish([Finished(claim_one(db, bundle_id), ANSWER, 0.5)])
    assert stored(db) == {}
