"""What is known of all sources: how often each is cited, whether that is more than its size explains, and when.

A small database is counted when somebody asks. Of a large one the sweeper keeps the counts, which it makes a part at a time; they are told with their age.
What is kept holds as long as the newest change in the trail is the one that it was counted at, as for listings (`db.reading.listings`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from sqlalchemy import ColumnElement, case, delete, func, or_, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import NEWEST_CHANGE
from db.clock import db_now
from db.counts import count_at_most
from db.models import Audit, Citation, SourceFactsRow, SourceLook, TrainingExample
from db.parts import Parts, Rounds, stretches
from db.reading import blame
from db.reading.asked import is_late, is_wanted, keep_on, note, take_over
from db.reading.blame import OverTime
from db.reading.culprits import worst_of
from db.reading.listings import SMALL
from db.reading.reader import sources
from db.reading.said import of_what_was_said
from db.session import Database
from db.sight import is_limited
from db.statements import insert_rows
from wherefrom.errors import NotFound
from wherefrom.records import SourceBlame, SourceDetail, SourceSummary

#: Training examples that are shown as the worst of a source.
WORST = 10
#: Audits whose citations are counted at once.
_AT_ONCE = 2_000


@dataclass(frozen=True)
class SourceFacts:
    """All sources, those with the most first citations first, and their tests by name."""

    summaries: Sequence[SourceSummary]
    blames: Sequence[SourceBlame]
    #: When they were counted; None: now.
    as_of: datetime | None = None


@dataclass(frozen=True)
class _Kept:
    """What is known of the last look."""

    #: None where none is whole yet.
    counted_at: datetime | None
    #: Whoever asks counts: the database is small, or they may see a part of it only.
    counted_now: bool


def facts(db: Database) -> SourceFacts:
    """All sources; a large database is counted now where nothing is known of it."""
    return known(db) or _facts_now(db)


def known(db: Database) -> SourceFacts | None:
    """The same without a wait: None where a large database is left to the sweeper, which has not counted it yet."""
    kept = _look(db)
    if kept.counted_now:
        return _facts_now(db)
    if kept.counted_at is None:
        return None
    with db.reading() as session:  # the age belongs to these rows: another count may have come meanwhile
        counted_at = session.scalar(select(SourceLook.computed_at))
        rows = session.execute(select(SourceFactsRow.summary, SourceFactsRow.blame)).all()
    summaries = [SourceSummary(**row.summary) for row in rows]
    summaries.sort(key=lambda one: (-one.first_citations, -one.citations, one.source))
    return SourceFacts(summaries, [SourceBlame(**row.blame) for row in rows], counted_at)


def source_detail(db: Database, source: str) -> SourceDetail:
    """One source; a large database is counted now where nothing is known of it.

    Raises:
        NotFound: no stored training example has it.
    """
    return known_detail(db, source) or _detail(db, source, *_counted_now(db, source))


def known_detail(db: Database, source: str) -> SourceDetail | None:
    """The same without a wait: None where a large database is left to the sweeper, which has not counted it yet.

    Raises:
        NotFound: no stored training example has it.
    """
    kept = _look(db)
    if kept.counted_now:
        return _detail(db, source, *_counted_now(db, source))
    if kept.counted_at is None:
        return None
    with db.reading() as session:  # both of one count: another may have come meanwhile
        look, row = session.scalars(select(SourceLook)).one(), session.get(SourceFactsRow, source)
    if row is None:
        raise NotFound(f"no training example of the source {source!r} was stored when sources were counted")
    edges = [datetime.fromisoformat(one) for one in look.edges]
    periods = OverTime(edges, look.audits, {source: row.firsts})
    mine = SourceBlame(**row.blame).model_copy(update={"citations": row.summary["citations"]})
    return _detail(db, source, mine, periods).model_copy(update={"as_of": look.computed_at})


def rounds(db: Database) -> Rounds:
    """Counting of all sources, where somebody waits for it, as work for the sweeper's rounds."""
    return Rounds(partial(_next, db))


def _next(db: Database) -> Parts[None] | None:
    with db.reading() as session:
        wanted = session.scalar(select(SourceLook.id).where(is_wanted(SourceLook)))
    return None if wanted is None else _counting(db)


def _look(db: Database) -> _Kept:
    """What is known, after noting that somebody asked where it does not hold. Where the sweeper does not answer, one of those who ask counts for all."""
    with db.reading() as session:
        numbers = (count_at_most(SMALL + 1, one > 0) for one in (Audit.id, TrainingExample.id))
        now, newest, *counts = session.execute(select(db_now(), NEWEST_CHANGE, *numbers)).one()
        if is_limited() or max(counts) <= SMALL:  # what is kept was counted over everything
            return _Kept(None, counted_now=True)
        row = session.scalars(select(SourceLook)).one_or_none()
    if row is None or row.computed_at is None or row.newest_event != (newest or 0):
        new = {"id": 1, "edges": [], "audits": [], "newest_event": 0}
        note(db, SourceLook, new, unique=(SourceLook.id,), values={"asked_at": db_now()})
    counted_at = None if row is None else row.computed_at
    if row is not None and counted_at is None and is_late(row, now) and take_over(db, SourceLook, _THE_LOOK):
        for _ in _counting(db):
            keep_on(db, SourceLook, _THE_LOOK)
        counted_at = now
    return _Kept(counted_at, counted_now=False)


_THE_LOOK = SourceLook.id == 1


def _facts_now(db: Database) -> SourceFacts:
    return SourceFacts(sources(db), blame.blame(db))


def _counted_now(db: Database, source: str) -> tuple[SourceBlame, OverTime]:
    mine = next((one for one in blame.blame(db) if one.source == source), None)
    if mine is None:
        raise NotFound(f"no stored training example has the source {source!r}")
    cited = select(func.count()).where(
        Citation.source == source, Citation.rank > 0, of_what_was_said(Citation.audit_id)
    )
    with db.reading() as session:
        mine = mine.model_copy(update={"citations": session.scalar(cited) or 0})
        return mine, blame.over_time(session, source)


def _detail(db: Database, source: str, mine: SourceBlame, periods: OverTime) -> SourceDetail:
    with db.reading() as session:
        verdicts = blame.verdicts_on(session, source)
    worst = worst_of(db, source, most=WORST)
    return SourceDetail(blame=mine, over_time=tuple(periods.of(source)), worst=worst, verdicts=verdicts)


@dataclass
class _Sums:
    """What was counted so far."""

    examples: Counter[tuple[int, str]] = field(default_factory=Counter)
    citations: Counter[str] = field(default_factory=Counter)
    firsts: Counter[str] = field(default_factory=Counter)
    audits: Counter[str] = field(default_factory=Counter)

    def add(self, session: Session, *wanted: ColumnElement[bool]) -> None:
        """Count the citations of which this holds; they are all of an audit or none."""
        counts = (
            select(
                Citation.source,
                func.count().label("citations"),
                func.sum(case((Citation.rank == 1, 1), else_=0)).label("firsts"),
                func.count(Citation.audit_id.distinct()).label("audits"),
            )
            .where(Citation.rank > 0, of_what_was_said(Citation.audit_id), *wanted)
            .group_by(Citation.source)
        )
        for row in session.execute(counts):
            self.citations[row.source] += row.citations
            self.firsts[row.source] += row.firsts
            self.audits[row.source] += row.audits

    def summaries(self) -> Iterator[SourceSummary]:
        """What each source comes to."""
        examples: Counter[str] = Counter()
        for (_, source), number in self.examples.items():
            examples[source] += number
        for source, number in examples.items():
            yield SourceSummary(
                source=source,
                examples=number,
                citations=self.citations[source],
                first_citations=self.firsts[source],
                audits=self.audits[source],
            )


def _counting(db: Database) -> Parts[None]:
    """Count all sources a part at a time. They are told as they were when this began."""
    with db.reading() as session:
        newest, began = session.execute(select(NEWEST_CHANGE, db_now())).one()
    sums = _Sums()
    for some in stretches(db, TrainingExample.id):
        with db.reading() as session:
            sums.examples.update(blame.examples_in(session, TrainingExample.id.between(*some)))
        yield
    for some in stretches(db, Audit.id, rows=_AT_ONCE):
        with db.reading() as session:
            sums.add(session, Citation.audit_id.between(*some))
        yield
    with db.reading() as session:
        blames = {one.source: one for one in blame.blames(session, sums.examples)}
    yield
    with db.reading() as session:
        periods = blame.over_time(session)
    rows = [
        {
            "source": one.source,
            "summary": one.model_dump(mode="json"),
            "blame": blames[one.source].model_dump(mode="json"),
            "firsts": list(periods.firsts.get(one.source) or [0] * len(periods.audits)),
        }
        for one in sums.summaries()
    ]
    look = {
        "edges": [one.isoformat() for one in periods.edges],
        "audits": list(periods.audits),
        "newest_event": newest or 0,
        "computed_at": began,
    }
    older = or_(SourceLook.computed_at.is_(None), SourceLook.computed_at < began)
    with db.writing() as session:
        # First of all, so that of two sweepers one waits here; the one that began later stays.
        if session.scalar(update(SourceLook).where(older).values(**look).returning(SourceLook.id)) is None:
            return
        session.execute(delete(SourceFactsRow))
        if rows:
            session.execute(insert_rows(SourceFactsRow), rows)
