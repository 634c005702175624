"""Sources: whether one is blamed more often than its size explains, when, by which examples, and what people say of it.

The test counts first citations, of which each audit has one: the ten citations of one audit hang together, first citations of different outputs much less.
It looks at the newest `LOOKED_AT` answered audits. What grows with the database is counted by `db.reading.source_facts`, which keeps it for large ones.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from sqlalchemy import ColumnElement, Subquery, case, func, select
from sqlalchemy.orm import Session

from db.models import Audit, Bundle, Citation, Corpus, FlaggedOutput, Review, TrainingExample
from db.pages import Keyset
from db.reading.culprits import excerpts
from db.reading.said import is_of_corpus, of_what_was_said
from db.reading.selection import ANSWERED_ALONE
from db.reading.standing import standing
from db.session import Database
from db.storing.search import Part, hits
from wherefrom.records import BlamePeriod, FoundExample, Page, SourceBlame
from wherefrom.statistics import adjusted, binomial_tail

#: Newest answered audits that are looked at.
LOOKED_AT = 100_000
#: Most stretches of time, and the lengths that they may have.
PERIODS = 40
LENGTHS = tuple(timedelta(hours=hours) for hours in (1, 6, 24, 7 * 24, 28 * 24, 91 * 24))


#: Stored training examples by corpus and source.
ExampleCounts = Mapping[tuple[int, str], int]


@dataclass(frozen=True)
class _Counted:
    """What the database counts of each corpus."""

    #: Answered audits by corpus, and those by corpus and first source.
    audits: Mapping[int, int]
    firsts: Mapping[tuple[int, str], int]
    examples: ExampleCounts
    #: Stored training examples by corpus alone.
    stored: Mapping[int, int]
    #: How many each corpus has.
    sizes: Mapping[int, int]


def blame(db: Database, *, newest: int = LOOKED_AT) -> list[SourceBlame]:
    """Every source with its test, the least explained by its size first; three statements."""
    with db.reading() as session:
        return blames(session, examples_in(session), newest=newest)


def blames(session: Session, examples: ExampleCounts, *, newest: int = LOOKED_AT) -> list[SourceBlame]:
    """The same with training examples that were counted already; two statements."""
    counted = _count(session, examples, newest)
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


def examples_in(session: Session, *wanted: ColumnElement[bool]) -> dict[tuple[int, str], int]:
    """Stored training examples by corpus and source, of those of which this holds."""
    examples = (
        select(TrainingExample.corpus_id, TrainingExample.source, func.count().label("number"))
        .where(is_of_corpus(), *wanted)
        .group_by(TrainingExample.corpus_id, TrainingExample.source)
    )
    return {(row.corpus_id, row.source): row.number for row in session.execute(examples)}


def verdicts_on(session: Session, source: str) -> dict[str, int]:
    """Verdicts on citations of a source that stand, by verdict."""
    counts = (
        select(Review.verdict, func.count().label("number"))
        .join(TrainingExample, TrainingExample.id == Review.training_example_id)
        .where(*standing(), TrainingExample.source == source)
        .group_by(Review.verdict)
    )
    return {row.verdict: row.number for row in session.execute(counts)}


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
            *ANSWERED_ALONE,
            FlaggedOutput.hypothetical_of.is_(None),
        )
        .order_by(Audit.created_at.desc(), Audit.id.desc())
        .limit(newest)
        .subquery("newest")
    )


def _count(session: Session, examples: ExampleCounts, newest: int) -> _Counted:
    audits = _newest(newest)
    firsts = (
        select(Bundle.corpus_id, audits.c.top_source, func.count().label("number"))
        .join(Bundle, Bundle.id == audits.c.bundle_id)
        .group_by(Bundle.corpus_id, audits.c.top_source)
    )
    audits_of: dict[int, int] = {}
    firsts_of: dict[tuple[int, str], int] = {}
    for row in session.execute(firsts):
        audits_of[row.corpus_id] = audits_of.get(row.corpus_id, 0) + row.number
        if row.top_source is not None:
            firsts_of[row.corpus_id, row.top_source] = row.number
    stored: dict[int, int] = {}
    for (corpus_id, _), number in examples.items():
        stored[corpus_id] = stored.get(corpus_id, 0) + number
    sizes = {row.id: row.examples for row in session.execute(select(Corpus.id, Corpus.examples))}
    return _Counted(audits_of, firsts_of, examples, stored, sizes)


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


@dataclass(frozen=True)
class OverTime:
    """First citations of sources in stretches of time."""

    #: One more than there are stretches; none where no audit is answered.
    edges: Sequence[datetime]
    #: Answered audits of each stretch.
    audits: Sequence[int]
    #: First citations of each stretch, by source.
    firsts: Mapping[str, Sequence[int]]

    def of(self, source: str) -> list[BlamePeriod]:
        """The blame of one source."""
        firsts = self.firsts.get(source) or [0] * len(self.audits)
        return [
            BlamePeriod(start=start, end=end, audits=audits, first_citations=number)
            for (start, end), audits, number in zip(pairwise(self.edges), self.audits, firsts, strict=True)
        ]


def over_time(session: Session, source: str | None = None) -> OverTime:
    """The blame of one source over time, or of all; two statements."""
    audits = _newest(LOOKED_AT)
    first, last = session.execute(select(func.min(audits.c.created_at), func.max(audits.c.created_at))).one()
    if first is None:
        return OverTime((), (), {})
    edges = period_edges(first, last)
    place = case(
        *((audits.c.created_at < edge, number) for number, edge in enumerate(edges[1:])), else_=len(edges)
    )
    blamed = audits.c.top_source if source is None else case((audits.c.top_source == source, source))
    counts = select(place.label("place"), blamed.label("source"), func.count().label("number")).group_by(
        "place", "source"
    )
    totals = [0] * (len(edges) - 1)
    firsts: dict[str, list[int]] = defaultdict(lambda: [0] * len(totals))
    for row in session.execute(counts):
        totals[row.place] += row.number
        if row.source is not None:
            firsts[row.source][row.place] += row.number
    return OverTime(edges, totals, firsts)


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
