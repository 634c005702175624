"""From the engine's citations to rows, for all audits of a transaction at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from sqlalchemy.orm import Session

from db.models import Citation
from db.statements import insert_many
from db.storing.examples import storable_name, stored_ids
from wherefrom.records import CitationDraft


@dataclass(frozen=True)
class CitedAudit:
    """An audit that this transaction has just closed, with what is to be stored for it."""

    audit_id: int
    corpus_id: int
    citations: tuple[CitationDraft, ...]


def store_citations(session: Session, audits: Sequence[CitedAudit]) -> None:
    """Insert the citations of audits with one statement, after the training examples that they point to.

    Plain INSERTs under UNIQUE (audit, rank) and UNIQUE (audit, example): that a citation is stored twice is a bug, and fails.
    """
    rows = []
    for corpus_id, group in groupby(sorted(audits, key=attrgetter("corpus_id")), key=attrgetter("corpus_id")):
        mine = list(group)
        ids = stored_ids(session, corpus_id, (draft.example for one in mine for draft in one.citations))
        rows += [
            _row(one.audit_id, ids[draft.example.example_id], draft)
            for one in mine
            for draft in one.citations
        ]
    if rows:
        insert_many(session, Citation, _without_nulls(rows))


def _without_nulls(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without the columns that are NULL in all of them: each value costs time, and half of them may be none."""
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


def _row(audit_id: int, training_example_id: int, draft: CitationDraft) -> dict[str, Any]:
    """A citation's columns: the draft's own fields, with ids in place of the example."""
    return {
        "audit_id": audit_id,
        "training_example_id": training_example_id,
        "source": storable_name(draft.example.source),
        **draft.model_dump(exclude={"example", "carried_by"}),
    }
