"""What exports read beyond the lists: the training examples that a selection cites, page by page, and what the trail keeps of an export."""

from array import array
from collections.abc import Iterator, Sequence

from sqlalchemy import ColumnElement, RowMapping, case, func, select

from db.audit_trail.reads import note_event
from db.audit_trail.trail import Event, TrailKind
from db.models import Audit, Citation, TrainingExample
from db.reading.culprits import STRENGTH, verdict_counts
from db.reading.listings import Conditions
from db.reading.reader import select_audits, select_examples
from db.reading.selection import ANSWERED_ALONE
from db.session import Database
from db.statements import is_marked, one_of
from wherefrom.records import AuditFilter, ExportedExample

#: Training examples of a page at most, about how many citations of a large selection one page counts, and by how much a page may be larger than the one before.
_AT_ONCE, _CITATIONS, _GROWTH = 200, 50_000, 8
#: Audits that are few.
_FEW = 30_000
#: Rows of a long answer that are fetched at once.
_ROWS = 5_000


def cited_examples(db: Database, wanted: Conditions, *, at_once: int = _AT_ONCE) -> Iterator[ExportedExample]:
    """The training examples that the answered audits of a selection cite, each once, by their numbers.

    The selection is looked up once. A small one is counted by its audits, whatever the database holds; a large one by walking over the
    training examples, so that nothing but a byte for each audit is held.

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


#: What the citations of each training example come to, by number, under the names of `ExportedExample`.
_Counts = Sequence[RowMapping]
_COUNTED = (
    select(
        Citation.training_example_id,
        func.count().label("outputs"),
        func.sum(case((Citation.rank == 1, 1), else_=0)).label("first_citations"),
        func.min(Citation.rank).label("best_rank"),
        STRENGTH.label("strength"),
        func.avg(Citation.influence_score).label("mean_influence"),
        func.max(Citation.confidence).label("confidence"),
        func.max(Citation.measured_effect_nats).label("measured_nats"),
    )
    .where(Citation.rank > 0)
    .group_by(Citation.training_example_id)
    .order_by(Citation.training_example_id)
)


def _of_few(db: Database, audits: Sequence[int], at_once: int) -> Iterator[_Counts]:
    """Pages of what a few audits cite, which is counted at once."""
    counts = _count(db, one_of(Citation.audit_id, audits))
    yield from (counts[start : start + at_once] for start in range(0, len(counts), at_once))


def _of_many(db: Database, audits: Sequence[int], at_once: int) -> Iterator[_Counts]:
    """Pages of what many audits cite: the citations of some training examples after the other.

    A page has as many training examples as have about `_CITATIONS` citations: some are cited by a percent of all audits, most by a few.
    """
    last_audit = max(audits)
    marks = bytearray(last_audit + 1)
    for number in audits:
        marks[number] = 1
    chosen = is_marked(Citation.audit_id, bytes(marks))
    counted = max(1, _CITATIONS * len(audits) // last_audit)
    with db.reading() as session:
        ends = session.execute(select(func.min(TrainingExample.id), func.max(TrainingExample.id))).one()
    at, last = (number or 0 for number in ends)
    step = 1
    while 0 < at <= last:
        counts = _count(db, Citation.training_example_id.between(at, at + step - 1), chosen)
        yield counts
        at += step
        outputs = sum(one["outputs"] for one in counts)
        step = max(1, min(at_once, _GROWTH * step, step * counted // max(1, outputs)))


def _count(db: Database, *wanted: ColumnElement[bool]) -> _Counts:
    with db.reading() as session:
        return session.execute(_COUNTED.where(*wanted)).mappings().all()


def _page(db: Database, counts: _Counts) -> Iterator[ExportedExample]:
    """The training examples of a page with their texts; two statements."""
    by_number = {row["training_example_id"]: row for row in counts}
    with db.reading() as session:
        texts = select_examples().where(TrainingExample.id.in_(by_number)).order_by(TrainingExample.id)
        rows = session.execute(texts).mappings().all()
        verdicts = verdict_counts(session, list(by_number))
    for row in rows:
        number = row["training_example_id"]
        yield ExportedExample(**{**row, **by_number[number], **verdicts[number]})


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
