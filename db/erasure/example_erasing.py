"""Erases training examples from the database: texts, fields, words, digests, what people quoted, and where outputs have words in common with them.

The row stays, and what cites it; it says when it was erased and by what. A row is made where none was: a worker that still holds an old bundle could store the text again otherwise.
Bundles are files, and the business of `worker.erasure.example_erasing`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, delete, or_, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.erasure import holds
from db.erasure.quoting import Quotations, erase_comments_on_example, erase_quotations
from db.models import Citation, ExampleWords, TrainingExample
from db.session import Database
from db.statements import carry_out, insert_new
from db.storing.examples import storable_name
from wherefrom import records
from wherefrom.records.erasing import NO_DIGEST


@dataclass(frozen=True)
class StoredExample:
    """A training example that is to go."""

    training_example_id: int
    corpus_id: int
    example_id: str
    text_sha256: str
    erased: bool


def stored(db: Database, example_ids: Iterable[str]) -> list[StoredExample]:
    """The stored training examples of all corpora with these ids."""
    names = sorted({storable_name(one) for one in example_ids})
    columns = (
        TrainingExample.id,
        TrainingExample.corpus_id,
        TrainingExample.example_id,
        TrainingExample.text_sha256,
        TrainingExample.erased_at,
    )
    with db.reading() as session:
        rows = session.execute(select(*columns).where(TrainingExample.example_id.in_(names)))
        return [StoredExample(*row[:4], erased=row[4] is not None) for row in rows]


def erase_examples(
    session: Session, examples: Mapping[int, Sequence[records.TrainingExample]], *, by: str
) -> int:
    """Erase training examples of some corpora; how many were there and were not erased yet.

    Args:
        session: A transaction that writes.
        examples: By id of the corpus.
        by: What the tombstone says.

    Raises:
        Held: a held output cites one of them; the caller rolls back.
    """
    holds.lock_erasing(session)
    _make_missing(session, examples)
    rows = _read(session, examples)
    if not rows:
        return 0
    ids = [row.id for row in rows]
    holds.refuse_held_examples(session, ids)
    texts = [text for row in rows for text in (row.prompt, row.completion, *_strings(row.fields)) if text]
    texts += [text for some in examples.values() for one in some for text in (one.prompt, one.completion)]
    gone: dict[str, Any] = {
        "prompt": "",
        "completion": "",
        "fields": {},
        "text_sha256": NO_DIGEST,
        "indexed": True,
        "erased_at": db_now(),
        "erased_by": by,
    }
    carry_out(session, delete(ExampleWords).where(ExampleWords.training_example_id.in_(ids)))
    carry_out(session, update(TrainingExample).where(TrainingExample.id.in_(ids)).values(**gone))
    cites = Citation.training_example_id.in_(ids)
    carry_out(session, update(Citation).where(cites).values(spans=None, overlaps=None))
    erase_comments_on_example(session, ids)
    erase_quotations(session, Quotations(texts))
    record_events(
        session, [Event(TrailKind.EXAMPLE_ERASED, f"training_example:{one}", {"by": by}) for one in ids]
    )
    return len(ids)


def _make_missing(session: Session, examples: Mapping[int, Sequence[records.TrainingExample]]) -> None:
    """Rows without texts for examples of large corpora that nobody cited so far."""
    rows = [
        {
            "corpus_id": corpus_id,
            "example_id": storable_name(one.example_id),
            "row": one.row,
            "source": storable_name(one.source),
            "prompt": "",
            "completion": "",
            "text_sha256": NO_DIGEST,
            "fields": {},
            "indexed": True,
        }
        for corpus_id, some in examples.items()
        for one in some
    ]
    rows.sort(key=lambda row: (row["corpus_id"], row["example_id"]))
    if rows:
        unique = (TrainingExample.corpus_id, TrainingExample.example_id)
        session.execute(insert_new(session, TrainingExample, unique), rows)


def _read(
    session: Session, examples: Mapping[int, Sequence[records.TrainingExample]]
) -> Sequence[TrainingExample]:
    wanted = [
        and_(
            TrainingExample.corpus_id == corpus_id,
            TrainingExample.example_id.in_([storable_name(one.example_id) for one in some]),
        )
        for corpus_id, some in examples.items()
    ]
    query = select(TrainingExample).where(or_(*wanted), TrainingExample.erased_at.is_(None))
    return session.scalars(query.order_by(TrainingExample.id).with_for_update()).all() if wanted else []


def _strings(value: Any) -> list[str]:
    """All texts in the further fields of a row."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for one in value.values() for text in _strings(one)]
    return [text for one in value for text in _strings(one)] if isinstance(value, list) else []
