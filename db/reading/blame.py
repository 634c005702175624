"""Sources: whether one is blamed more often than its size explains, when, by which examples, and what people say of it.

The test counts first citations, of which each audit has one: the ten citations of one audit hang together, first citations of different outputs much less.
All of it looks at the newest `LOOKED_AT` answered audits, so the cost has a bound.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import Subquery, case, func, select
from sqlalchemy.orm import Session

from db.models import Audit, Bundle, Citation, Corpus, FlaggedOutput, Review, TrainingExample
from db.pages import Keyset
from db.reading.culprits import culprits, excerpts
from db.reading.said import is_of_corpus, of_what_was_said
from db.reading.selection import ANSWERED
from db.reading.standing import standing
from db.session import Database
from db.storing.search import Part, hits
from wherefrom.errors import NotFound
from wherefrom.records import (
    AuditFilter,
    BlamePeriod,
    FoundExample,
    Page,
    SourceBlame,
    SourceDetail,
)
from wherefrom.statistics import adjusted, binomial_tail

#: Newest answered audits that are looked at.
LOOKED_AT = 100_000
#: Most stretches of time, the lengths that they may have, and training examples that are shown as the worst.
PERIODS = 40
LENGTHS = tuple(timedelta(hours=hours) for hours in (1, 6, 24, 7 * 24, 28 * 24, 91 * 24))
WORST = 10


@dataclass(frozen=True)
class _Counted:
    """What the database counts of each corpus."""

    #: Answered audits by corpus, and those by corpus and first source.
    audits: Mapping[int, int]
    firsts: Mapping[tuple[int, str], int]
    #: Stored training examples by corpus and source, and by corpus alone.
    examples: Mapping[tuple[int, str], int]
    stored: Mapping[int, int]
    #: How many each corpus has.
    sizes: Mapping[int, int]


def blame(db: Database, *, newest: int = LOOKED_AT) -> list[SourceBlame]:
    """Every source with its test, the least explained by its size first; three statements."""
    with db.reading() as session:
        counted = _count(session, newest)
    found = [_blame_of(source, counted) for source in sorted({source for _, source in counted.examples})]
    tested = [one for one in found if one.p is not None]
    q_values = dict(
        zip(
            (one.source for one in tested),
            adjusted([one.p for one in tested if one.p is not None]),
            strict=True,
        )
    )
    marked = [one.model_copy(update={"q": q_values.get(one.source)}) for one in found]
    return sorted(marked, key=lambda one: (1.0 if one.p is None else one.p, -one.first_citations, one.source))


def source_detail(db: Database, source: str) -> SourceDetail:
    """One source.

    Raises:
        NotFound: no stored training example has it.
    """
    mine = next((one for one in blame(db) if one.source == source), None)
    if mine is None:
        raise NotFound(f"no stored training example has the source {source!r}")
    with db.reading() as session:
        cited = select(func.count()).where(
            Citation.source == source, Citation.rank > 0, of_what_was_said(Citation.audit_id)
        )
        mine = mine.model_copy(update={"citations": session.scalar(cited) or 0})
        periods = _over_time(session, source)
        verdicts = _verdicts(session, source)
    worst = culprits(db, AuditFilter(source=source), source=source, most=WORST)
    return SourceDetail(blame=mine, over_time=tuple(periods), worst=worst, verdicts=verdicts)


def search_examples(
    db: Database, text: str, *, source: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[FoundExample]:
    """One page of the stored training examples in which words stand side by side, whatever their case, the newest first (`db.storing.search`).

    Args:
        db: The database.
        text: What to look for.
        source: Only training examples of this source.
        cursor: `next_cursor` of the page before; None for the first page.
        limit: Most training examples of the page.

    Raises:
        InvalidRecord: the cursor is not one that this list gave out.
    """
    outputs = (
        select(func.count())
        .where(
            Citation.training_example_id == TrainingExample.id,
            Citation.rank > 0,
            of_what_was_said(Citation.audit_id),
        )
        .correlate(TrainingExample)
        .scalar_subquery()
    )
    query = select(
        TrainingExample.id.label("training_example_id"), *excerpts(), outputs.label("outputs")
    ).where(hits(TrainingExample.id, text, (Part.EXAMPLE,)))
    if source is not None:
        query = query.where(TrainingExample.source == source)
    order = Keyset(TrainingExample.id, TrainingExample.id)
    with db.reading() as session:
        return order.read(
            session,
            query,
            cursor=cursor,
            limit=limit,
            record=lambda row: FoundExample(**{name: row[name] for name in FoundExample.model_fields}),
        )


def _newest(newest: int) -> Subquery:
    return (
        select(Audit.created_at, Audit.top_source, Audit.bundle_id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .where(
            Audit.state.in_(ANSWERED),
            FlaggedOutput.members.is_(None),
            FlaggedOutput.hypothetical_of.is_(None),
        )
        .order_by(Audit.created_at.desc(), Audit.id.desc())
        .limit(newest)
        .subquery("newest")
    )


def _count(session: Session, newest: int) -> _Counted:
    audits = _newest(newest)
    firsts = (
        select(Bundle.corpus_id, audits.c.top_source, func.count().label("number"))
        .join(Bundle, Bundle.id == audits.c.bundle_id)
        .group_by(Bundle.corpus_id, audits.c.top_source)
    )
    examples = (
        select(TrainingExample.corpus_id, TrainingExample.source, func.count().label("number"))
        .where(is_of_corpus())
        .group_by(TrainingExample.corpus_id, TrainingExample.source)
    )
    audits_of: dict[int, int] = {}
    firsts_of: dict[tuple[int, str], int] = {}
    for row in session.execute(firsts):
        audits_of[row.corpus_id] = audits_of.get(row.corpus_id, 0) + row.number
        if row.top_source is not None:
            firsts_of[row.corpus_id, row.top_source] = row.number
    examples_of = {(row.corpus_id, row.source): row.number for row in session.execute(examples)}
    stored: dict[int, int] = {}
    for (corpus_id, _), number in examples_of.items():
        stored[corpus_id] = stored.get(corpus_id, 0) + number
    sizes = {row.id: row.examples for row in session.execute(select(Corpus.id, Corpus.examples))}
    return _Counted(audits_of, firsts_of, examples_of, stored, sizes)


def _blame_of(source: str, counted: _Counted) -> SourceBlame:
    corpora = [corpus_id for corpus_id, name in counted.examples if name == source]
    audits = sum(counted.audits.get(one, 0) for one in corpora)
    firsts = sum(counted.firsts.get((one, source), 0) for one in corpora)
    known = all(counted.stored[one] >= counted.sizes[one] for one in corpora if counted.audits.get(one))
    share = None
    if audits and known:
        weighed = [
            counted.audits.get(one, 0) * counted.examples[one, source] / counted.sizes[one] for one in corpora
        ]
        share = min(sum(weighed) / audits, 1.0)
    return SourceBlame(
        source=source,
        examples=sum(counted.examples[one, source] for one in corpora),
        first_citations=firsts,
        audits=audits,
        share=share,
        expected=None if share is None else share * audits,
        p=None if share is None else binomial_tail(firsts, audits, share),
        q=None,
    )


def _over_time(session: Session, source: str) -> list[BlamePeriod]:
    audits = _newest(LOOKED_AT)
    first, last = session.execute(select(func.min(audits.c.created_at), func.max(audits.c.created_at))).one()
    if first is None:
        return []
    edges = period_edges(first, last)
    place = case(
        *((audits.c.created_at < edge, number) for number, edge in enumerate(edges[1:])), else_=len(edges)
    )
    blamed = func.sum(case((audits.c.top_source == source, 1), else_=0))
    counts = select(place.label("place"), func.count().label("audits"), blamed.label("firsts")).group_by(
        place
    )
    found = {row.place: (row.audits, row.firsts) for row in session.execute(counts)}
    return [
        BlamePeriod(
            start=start,
            end=end,
            audits=found.get(number, (0, 0))[0],
            first_citations=found.get(number, (0, 0))[1],
        )
        for number, (start, end) in enumerate(pairwise(edges))
    ]


def period_edges(first: datetime, last: datetime) -> Sequence[datetime]:
    """Edges of at most `PERIODS` stretches of equal length that hold both moments, on whole hours or days of UTC."""
    length = next((one for one in LENGTHS if (last - first) / one < PERIODS - 1), None)
    length = length or LENGTHS[-1] * -(-(last - first) // (LENGTHS[-1] * (PERIODS - 1)))
    start = first.replace(minute=0, second=0, microsecond=0)
    if length >= timedelta(days=1):
        start = start.replace(hour=0)
    else:
        start = start.replace(hour=start.hour - start.hour % (length // timedelta(hours=1)))
    count = (last - start) // length + 1
    return [start + number * length for number in range(count + 1)]


def _verdicts(session: Session, source: str) -> dict[str, int]:
    counts = (
        select(Review.verdict, func.count().label("number"))
        .join(TrainingExample, TrainingExample.id == Review.training_example_id)
        .where(*standing(), TrainingExample.source == source)
        .group_by(Review.verdict)
    )
    return {row.verdict: row.number for row in session.execute(counts)}
