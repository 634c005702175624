"""What exports read beyond the lists: the training examples that a selection cites, page by page, and what the trail keeps of an export."""

from collections.abc import Iterator

from sqlalchemy import case, func, select

from db.audit_trail.reads import note_event
from db.audit_trail.trail import Event, TrailKind
from db.models import Audit, Citation, Corpus, FlaggedOutput, TrainingExample
from db.reading.culprits import STRENGTH, verdict_counts
from db.reading.listings import Conditions
from db.reading.reader import select_audits
from db.reading.selection import ANSWERED
from db.session import Database
from db.statements import AnySelect
from wherefrom.records import AuditFilter, ExportedExample, Verdict

#: Training examples of one statement.
_AT_ONCE = 200


def cited_examples(db: Database, wanted: Conditions, *, at_once: int = _AT_ONCE) -> Iterator[ExportedExample]:
    """The training examples that the answered audits of a selection cite, each once, by their numbers. Two statements for each page.

    Args:
        db: The database.
        wanted: What `db.reading.listings.look_up` gave for the selection.
        at_once: Training examples of a page.
    """
    after = 0
    while True:
        page = _page(db, wanted, after, at_once)
        yield from page
        if len(page) < at_once:
            return
        after = page[-1].training_example_id


def _page(db: Database, wanted: Conditions, after: int, at_once: int) -> list[ExportedExample]:
    with db.reading() as session:
        rows = session.execute(_cited(wanted, after, at_once)).mappings().all()
        verdicts = verdict_counts(session, [row["training_example_id"] for row in rows])
    return [
        ExportedExample(
            **row,
            confirmed=verdicts.get((row["training_example_id"], Verdict.CONFIRMED), 0),
            unrelated=verdicts.get((row["training_example_id"], Verdict.UNRELATED), 0),
        )
        for row in rows
    ]


def _cited(wanted: Conditions, after: int, at_once: int) -> AnySelect:
    """One page: walks the index of citations by training example, and texts are read for the page alone."""
    of_selection = select_audits(Audit.id).where(
        Audit.state.in_(ANSWERED), FlaggedOutput.members.is_(None), *wanted
    )
    page = (
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
        .where(Citation.training_example_id > after, Citation.rank > 0, Citation.audit_id.in_(of_selection))
        .group_by(Citation.training_example_id)
        .order_by(Citation.training_example_id)
        .limit(at_once)
        .subquery("page")
    )
    return (
        select(
            page,
            TrainingExample.example_id,
            TrainingExample.source,
            TrainingExample.prompt,
            TrainingExample.completion,
            TrainingExample.text_sha256,
            Corpus.sha256.label("corpus_sha256"),
        )
        .join(TrainingExample, TrainingExample.id == page.c.training_example_id)
        .join(Corpus, Corpus.id == TrainingExample.corpus_id)
        .order_by(page.c.training_example_id)
    )


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
