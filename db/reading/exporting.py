"""What exports read beyond the lists: the training examples that a selection cites, page by page, and what the trail keeps of an export."""

from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from db.audit_trail.reads import note_event
from db.audit_trail.trail import Event, TrailKind
from db.models import Audit, Citation, TrainingExample
from db.parts import stretches
from db.reading.culprits import verdict_counts
from db.reading.listings import Conditions
from db.reading.reader import select_audits, select_examples
from db.reading.selection import ANSWERED_ALONE
from db.session import Database
from wherefrom.records import AuditFilter, ExportedExample

#: Training examples of a page.
_AT_ONCE = 200
#: Audits that are few, and of how many of them the citations are read at once.
_FEW, _AUDITS = 30_000, 500
#: Rows of a long answer that are fetched at once.
_ROWS = 5_000


def cited_examples(db: Database, wanted: Conditions, *, at_once: int = _AT_ONCE) -> Iterator[ExportedExample]:
    """The training examples that the answered audits of a selection cite, each once, by their numbers.

    The selection is looked up once. A small one is counted by its audits, whatever the database holds; a large one by walking over the
    training examples, so that nothing but a bit for each audit is held.

    Args:
        db: The database.
        wanted: What `db.reading.listings.look_up` gave for the selection.
        at_once: Training examples of a page.
    """
    audits = _selected(db, wanted)
    pages = _of_few(db, audits, at_once) if len(audits) <= _FEW else _of_many(db, audits, at_once)
    for counts in filter(None, pages):
        yield from _page(db, counts)


def _selected(db: Database, wanted: Conditions) -> "array[int]":
    """Numbers of the answered audits of a selection."""
    query = select_audits(Audit.id).where(*ANSWERED_ALONE, *wanted).execution_options(yield_per=_ROWS)
    with db.reading() as session:
        return array("q", session.scalars(query))


@dataclass(slots=True)
class _Count:
    """What the citations of one training example come to."""

    outputs: int = 0
    first_citations: int = 0
    best_rank: int = 0
    strength: float = 0.0
    influences: int = 0
    influence: float = 0.0
    confidence: float | None = None
    measured_nats: float | None = None

    def add(self, rank: int, influence: float | None, confidence: float | None, nats: float | None) -> None:
        """Count one citation; of a large database there are millions."""
        self.outputs += 1
        self.strength += 1 / rank
        if rank == 1:
            self.first_citations += 1
        if rank < self.best_rank or not self.best_rank:
            self.best_rank = rank
        if influence is not None:
            self.influences += 1
            self.influence += influence
        if confidence is not None and (self.confidence is None or confidence > self.confidence):
            self.confidence = confidence
        if nats is not None and (self.measured_nats is None or nats > self.measured_nats):
            self.measured_nats = nats

    @property
    def fields(self) -> dict[str, Any]:
        """Under the names of `ExportedExample`."""
        names = ("outputs", "first_citations", "best_rank", "strength", "confidence", "measured_nats")
        mean = self.influence / self.influences if self.influences else None
        return {name: getattr(self, name) for name in names} | {"mean_influence": mean}


#: Counts by training example, of one page.
_Counts = dict[int, _Count]
_CITED = select(
    Citation.audit_id,
    Citation.training_example_id,
    Citation.rank,
    Citation.influence_score,
    Citation.confidence,
    Citation.measured_effect_nats,
).where(Citation.rank > 0)


def _of_few(db: Database, audits: Sequence[int], at_once: int) -> Iterator[_Counts]:
    """Pages of what a few audits cite."""
    counts: dict[int, _Count] = defaultdict(_Count)
    for start in range(0, len(audits), _AUDITS):
        some = _CITED.where(Citation.audit_id.in_(audits[start : start + _AUDITS]))
        with db.reading() as session:
            for _, number, rank, influence, confidence, nats in session.execute(some):
                counts[number].add(rank, influence, confidence, nats)
    cited = sorted(counts)
    for start in range(0, len(cited), at_once):
        yield {number: counts[number] for number in cited[start : start + at_once]}


def _of_many(db: Database, audits: Sequence[int], at_once: int) -> Iterator[_Counts]:
    """Pages of what many audits cite: the citations of some training examples after the other."""
    chosen = bytearray((max(audits) >> 3) + 1)
    for number in audits:
        chosen[number >> 3] |= 1 << (number & 7)
    for first, last in stretches(db, TrainingExample.id, rows=at_once):
        some = _CITED.where(Citation.training_example_id.between(first, last))
        counts: dict[int, _Count] = defaultdict(_Count)
        with db.reading() as session:
            rows = session.execute(some.execution_options(yield_per=_ROWS))
            for audit_id, number, rank, influence, confidence, nats in rows:
                place = audit_id >> 3
                if place < len(chosen) and chosen[place] >> (audit_id & 7) & 1:
                    counts[number].add(rank, influence, confidence, nats)
        yield counts


def _page(db: Database, counts: _Counts) -> Iterator[ExportedExample]:
    """The training examples of a page with their texts; two statements."""
    with db.reading() as session:
        texts = select_examples().where(TrainingExample.id.in_(counts)).order_by(TrainingExample.id)
        rows = session.execute(texts).mappings().all()
        verdicts = verdict_counts(session, list(counts))
    for row in rows:
        number = row["training_example_id"]
        yield ExportedExample(**row, **counts[number].fields, **verdicts[number])


def note_export(db: Database, what: str, *, form: str, filters: AuditFilter | None = None) -> None:
    """Tell the trail that somebody takes something out of the service. Of the filter it keeps the names: words that are searched for may have to be erased.

    Args:
        db: The database.
        what: What is taken, such as ``citations`` or ``report``.
        form: As which file.
        filters: Which audits; None where they are named in another way.
    """
    plain = {} if filters is None else filters.model_dump(mode="json", exclude_none=True)
    note_event(db, Event(TrailKind.EXPORTED, f"export:{what}", {"format": form, "filters": sorted(plain)}))
