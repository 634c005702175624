"""What of findings is made of texts, and goes with them: names, words and vectors."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import delete, select

from db.grouping import finding_changes, finding_work, findings
from db.grouping.finding_names import name_finding
from db.models import FlaggedText, TrailEvent
from db.reviewing.reviews import Reviewer
from db.session import Database
from tests.integration.db.builders import register
from tests.integration.db.test_findings import ann, listed, say, standing
from wherefrom.errors import InvalidRequest
from wherefrom.records import FindingSplit
from worker.sweeper.finding import group_outputs

__all__ = ["ann"]


def test_names_go_with_the_texts(db: Database, bundle_id: int, ann: Reviewer) -> None:
    """A word that only erased texts had is gone in the same moment, whoever erased them; the sweeper then finds others."""
    say(db, bundle_id, *range(0, 12, 2))
    say(db, bundle_id, *range(1, 12, 2))
    group_outputs(db)
    [refunds] = [one for one in listed(db) if 1 in standing(db, one.finding_id)]
    alone = finding_changes.split(db, refunds.finding_id, FindingSplit(audit_ids=(1,)), by=ann)
    assert findings.get_finding(db, alone).finding.words
    erase(db, 1)
    assert findings.get_finding(db, alone).finding.name == f"Finding {alone}"
    assert alone in list(finding_work.due_findings(db, most=20))
    group_outputs(db)
    assert findings.get_finding(db, alone).finding.words == ()
    assert alone not in list(finding_work.due_findings(db, most=20))
    finding_changes.rename(db, alone, "by hand", by=ann)
    name_finding(db, alone)
    assert findings.get_finding(db, alone).finding.name == "by hand"
    finding_changes.rename(db, alone, " ", by=ann)
    assert findings.get_finding(db, alone).finding.title is None
    with pytest.raises(InvalidRequest, match="erased"):
        finding_changes.ask_as_one(db, alone, producer="local")
    trail = all_of(db, lambda: select(TrailEvent.payload).where(TrailEvent.kind.like("finding%")))
    assert "by hand" not in str(trail)


def test_sqlite_erases_words_and_vectors_whoever_erases(sqlite_copy: str) -> None:
    """A tool that follows no foreign keys erases as much as the service."""
    db = Database(sqlite_copy)
    bundle_id = register(db)
    say(db, bundle_id, 0, 2, 4)
    group_outputs(db)
    with closing(sqlite3.connect(sqlite_copy.removeprefix("sqlite:///"))) as tool:
        tool.execute("DELETE FROM flagged_text")
        tool.commit()
        left = tool.execute(
            "SELECT (SELECT count(*) FROM finding_word), (SELECT count(*) FROM output_vector)"
        )
        assert left.fetchall() == [(0, 0)]
    assert listed(db)[0].name == "Finding 1"
    db.dispose()


def erase(db: Database, output_id: int) -> None:
    """Erase a text as an operator does."""
    with db.writing() as session:
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == output_id))


def all_of(db: Database, query: Callable[[], object]) -> list[object]:
    """What a query finds."""
    with db.reading() as session:
        return list(session.scalars(query()))  # type: ignore[call-overload]  # any SELECT
