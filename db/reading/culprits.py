"""Culprits: the training examples that a selection of audits names, ranked across it.

Scores have no common unit between audits, ranks have: a citation counts 1 / rank. Only the newest audits of a large selection are looked
at (`CULPRIT_AUDITS`), so the cost has a bound; the answer says whether there are more. Groups of outputs are left out: their members have audits of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Float, Subquery, case, cast, func, select
from sqlalchemy.orm import Session

from db.models import Audit, Citation, FindingOutput, Review, TrainingExample
from db.reading.listings import Conditions, look_up
from db.reading.reader import select_audits
from db.reading.said import of_what_was_said
from db.reading.selection import ANSWERED_ALONE
from db.reading.standing import standing
from db.session import Database
from db.statements import AnySelect, one_of
from wherefrom.records import AuditFilter, Culprit, Culprits, Verdict
from wherefrom.records.blaming import CULPRIT_AUDITS

#: Characters of a training text in a list.
EXCERPT_CHARS = 400
#: Verdicts that are counted beside a training example; what shows it has fields of their names.
_TOLD = (Verdict.CONFIRMED, Verdict.UNRELATED)
#: A citation's weight in a ranking over audits.
STRENGTH = func.sum(1.0 / cast(Citation.rank, Float))


def culprits(
    db: Database,
    filters: AuditFilter,
    *,
    most: int = 50,
    least_outputs: int = 1,
    newest: int = CULPRIT_AUDITS,
) -> Culprits:
    """The training examples that a selection names, strongest first; three statements, and those that look filters up.

    The audits are picked once and named by their numbers: to find them again for the ranking cost as much as the ranking.

    Args:
        db: The database.
        filters: The selection.
        most: How many training examples.
        least_outputs: Those that fewer audits cite are left out.
        newest: How many audits are looked at, newest first.
    """
    wanted = look_up(db, filters)
    with db.reading() as session:
        numbers = session.scalars(_newest(wanted, newest + 1)).all()
        audits = numbers[:newest]
        ranked = _ranked(one_of(Citation.audit_id, audits), most=most, least_outputs=least_outputs)
        return _read(session, ranked, audits=len(audits), more=len(numbers) > newest)


def worst_of(db: Database, source: str, *, most: int, newest: int = CULPRIT_AUDITS) -> Culprits:
    """The training examples of a source by the audits that cite it, strongest first; four statements.

    The audits are found by its citations, so however many there are, the newest by number cost the same.

    Args:
        db: The database.
        source: The source.
        most: How many training examples.
        newest: How many audits are looked at.
    """
    with db.reading() as session:
        numbers = session.scalars(_citing(source, newest + 1)).all()
        return _of_numbers(session, numbers, Citation.source == source, most=most, newest=newest)


def culprits_of_finding(
    db: Database, whole: Sequence[int], *, most: int, newest: int = CULPRIT_AUDITS
) -> Culprits:
    """The training examples that the outputs of a finding name, strongest first; four statements.

    The newest outputs are found by the numbers of their audits, so a finding of any size costs the same.

    Args:
        db: The database.
        whole: The finding, and what went into it.
        most: How many training examples.
        newest: How many outputs are looked at.
    """
    with db.reading() as session:
        inside = select(FindingOutput.audit_id).where(FindingOutput.finding_id.in_(whole))
        inside = inside.order_by(FindingOutput.audit_id.desc()).limit(newest + 1)
        numbers = session.scalars(inside).all()
        return _of_numbers(session, numbers, most=most, newest=newest)


def _citing(source: str, newest: int) -> AnySelect:
    citing = select(Citation.audit_id).where(Citation.source == source, Citation.rank > 0)
    said = citing.where(of_what_was_said(Citation.audit_id)).distinct()
    return said.order_by(Citation.audit_id.desc()).limit(newest)


def _of_numbers(
    session: Session, numbers: Sequence[int], *wanted: ColumnElement[bool], most: int, newest: int
) -> Culprits:
    """What the first `newest` of these audits name; more numbers than that say that there are more."""
    alone = select_audits(Audit.id).where(*ANSWERED_ALONE, one_of(Audit.id, numbers[:newest]))
    audits = session.scalars(alone).all()
    ranked = _ranked(one_of(Citation.audit_id, audits), *wanted, most=most, least_outputs=1)
    return _read(session, ranked, audits=len(audits), more=len(numbers) > newest)


def _read(session: Session, ranked: Subquery, *, audits: int, more: bool) -> Culprits:
    rows = session.execute(_with_texts(ranked)).mappings().all()
    verdicts = verdict_counts(session, [row["training_example_id"] for row in rows])
    return Culprits(
        items=tuple(Culprit(**row, **verdicts[row["training_example_id"]]) for row in rows),
        audits=audits,
        more=more,
    )


def culprit_ids(wanted: Conditions, *, most: int, least_outputs: int) -> AnySelect:
    """The same training examples by number, as a statement over what `look_up` gave."""
    audits = select(selected(wanted, CULPRIT_AUDITS).c.id)
    ranked = _ranked(Citation.audit_id.in_(audits), most=most, least_outputs=least_outputs)
    return select(ranked.c.training_example_id)


def selected(wanted: Conditions, newest: int) -> Subquery:
    """Ids of the newest answered audits of a selection."""
    return _newest(wanted, newest).subquery("selected")


def _newest(wanted: Conditions, newest: int) -> AnySelect:
    newest_first = (Audit.created_at.desc(), Audit.id.desc())
    return select_audits(Audit.id).where(*ANSWERED_ALONE, *wanted).order_by(*newest_first).limit(newest)


def verdict_counts(session: Session, training_example_ids: Sequence[int]) -> Mapping[int, dict[str, int]]:
    """How many verdicts of each kind in `_TOLD` stand, by training example; zeros where nobody judged it."""
    found = {number: {one.value: 0 for one in _TOLD} for number in training_example_ids}
    if not found:
        return found
    counts = (
        select(Review.training_example_id, Review.verdict, func.count().label("number"))
        .where(*standing(), Review.training_example_id.in_(training_example_ids))
        .group_by(Review.training_example_id, Review.verdict)
    )
    for row in session.execute(counts):
        if row.verdict in _TOLD:
            found[row.training_example_id][row.verdict] = row.number
    return found


def _ranked(*wanted: ColumnElement[bool], most: int, least_outputs: int) -> Subquery:
    """The training examples that citations name of which this holds."""
    outputs = func.count()
    return (
        select(
            Citation.training_example_id,
            outputs.label("outputs"),
            func.sum(case((Citation.rank == 1, 1), else_=0)).label("first_citations"),
            STRENGTH.label("strength"),
            func.avg(Citation.influence_score).label("mean_influence"),
            func.max(Citation.measured_effect_nats).label("measured_nats"),
        )
        .where(Citation.rank > 0, *wanted)
        .group_by(Citation.training_example_id)
        .having(outputs >= least_outputs)
        .order_by(STRENGTH.desc(), outputs.desc(), Citation.training_example_id)
        .limit(most)
        .subquery("ranked")
    )


def _with_texts(ranked: Subquery) -> AnySelect:
    order = (ranked.c.strength.desc(), ranked.c.outputs.desc(), ranked.c.training_example_id)
    return (
        select(ranked, *excerpts())
        .join(TrainingExample, TrainingExample.id == ranked.c.training_example_id)
        .order_by(*order)
    )


def excerpts() -> tuple[ColumnElement[Any], ...]:
    """What lists show of a training example."""
    return (
        TrainingExample.example_id.label("example_id"),
        TrainingExample.source.label("source"),
        func.substr(TrainingExample.prompt, 1, EXCERPT_CHARS).label("prompt"),
        func.substr(TrainingExample.completion, 1, EXCERPT_CHARS).label("completion"),
    )
