"""What the verdicts of people say together: agreement of pairs, and how often blind verdicts bear out what was stated."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import ColumnElement, exists, select

from db.models import Citation, Review, ReviewAssignment, ReviewItem
from db.reading.standing import standing
from db.session import Database
from wherefrom.agreement import cohen_kappa, wilson
from wherefrom.records import PairAgreement, Verdict

#: Verdicts that say something about the cause, in the order of the tables.
DECIDING = tuple(one for one in Verdict if one.decides)
#: Lower edges of the bins of stated confidence.
_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class Bin:
    """Blind verdicts on citations of one kind."""

    name: str
    #: Mean of the confidences stated; None where none is.
    stated: float | None
    judged: int
    confirmed: int
    #: Confirmed or plausible.
    plausible: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share that people confirm."""
        return wilson(self.confirmed, self.judged)


@dataclass(frozen=True)
class Comparison:
    """What was stated against what people found blind."""

    by_confidence: tuple[Bin, ...]
    by_rank: tuple[Bin, ...]
    #: Examples that were mixed in at random.
    mixed_in: Bin
    people: int
    #: Citations whose effect was measured: how often its interval lies above 0.
    measured: tuple[Bin, ...]


def pairs(db: Database, queue_id: int | None = None) -> list[PairAgreement]:
    """Every two people who judged at least one target alike in kind (both blind, or both not); most shared targets first.

    Args:
        db: The database.
        queue_id: Count only what people judged of the audits that they have in this review queue.
    """
    in_queue = () if queue_id is None else (_has_it_in(queue_id),)
    query = select(
        Review.audit_id, Review.training_example_id, Review.blind, Review.reviewer, Review.verdict
    ).where(Review.verdict.in_(DECIDING), Review.person_id.is_not(None), *standing(), *in_queue)
    targets: dict[tuple[int, int | None, bool], dict[str, Verdict]] = defaultdict(dict)
    with db.reading() as session:
        for row in session.execute(query):
            targets[row.audit_id, row.training_example_id, row.blind][row.reviewer] = row.verdict
    both: dict[tuple[str, str], list[tuple[int, Verdict, Verdict]]] = defaultdict(list)
    for (audit_id, _, _), found in targets.items():
        for first, second in combinations(sorted(found), 2):
            both[first, second].append((audit_id, found[first], found[second]))
    made = [_pair(first, second, shared) for (first, second), shared in both.items()]
    return sorted(made, key=lambda one: (-one.pairs, one.first, one.second))


def _has_it_in(queue_id: int) -> ColumnElement[bool]:
    """Whether who judged has the audit in a queue; on which way they judged it does not matter."""
    mine = (ReviewAssignment.item_id == ReviewItem.id) & (ReviewAssignment.person_id == Review.person_id)
    return (
        exists()
        .where(mine, ReviewItem.queue_id == queue_id, ReviewItem.audit_id == Review.audit_id)
        .correlate(Review)
    )


def _pair(first: str, second: str, shared: list[tuple[int, Verdict, Verdict]]) -> PairAgreement:
    table = [[sum(a is i and b is j for _, a, b in shared) for j in DECIDING] for i in DECIDING]
    differing = [audit_id for audit_id, a, b in shared if a is not b]
    kappa = cohen_kappa(table)
    return PairAgreement(
        first=first,
        second=second,
        pairs=kappa.pairs,
        observed=kappa.observed,
        kappa=kappa.value,
        kappa_low=kappa.low,
        kappa_high=kappa.high,
        differing=len(differing),
        differing_audits=tuple(sorted(set(differing), reverse=True)[:5]),
    )


def compare(db: Database) -> Comparison:
    """Blind verdicts that stand, by the confidence and the rank of what they judge, and measured effects by confidence; two statements."""
    query = (
        select(Review.rank, Review.verdict, Review.person_id, Citation.confidence)
        .outerjoin(Citation, (Citation.audit_id == Review.audit_id) & (Citation.rank == Review.rank))
        .where(Review.blind.is_(True), Review.verdict.in_(DECIDING), *standing())
    )
    by_confidence: dict[int, list[tuple[float | None, Verdict]]] = defaultdict(list)
    by_rank: dict[str, list[tuple[float | None, Verdict]]] = {name: [] for name in _RANKS}
    mixed_in: list[tuple[float | None, Verdict]] = []
    people = set()
    effects: dict[int, list[tuple[float | None, Verdict]]] = defaultdict(list)
    with db.reading() as session:
        for stated, low in session.execute(_MEASURED):
            if stated is None:
                continue  # not asked of the database: SQLite would walk through every citation with a confidence
            above = Verdict.CONFIRMED if low is not None and low > 0 else Verdict.UNRELATED
            effects[_bin_of(stated)].append((stated, above))
        for rank, verdict, person_id, confidence in session.execute(query):
            if verdict is None:
                continue  # the query leaves them out
            people.add(person_id)
            if rank is None:
                mixed_in.append((None, verdict))
                continue
            by_rank[_rank_name(rank)].append((confidence, verdict))
            if confidence is not None:
                by_confidence[_bin_of(confidence)].append((confidence, verdict))
    return Comparison(
        _bins(by_confidence),
        tuple(_bin(name, found) for name, found in by_rank.items()),
        _bin("drawn at random", mixed_in),
        len(people),
        _bins(effects),
    )


#: Confidence and lower end of the effect of citations whose effect was measured.
_MEASURED = select(Citation.confidence, Citation.measured_low_nats).where(
    Citation.measured_effect_nats.is_not(None)
)


def _bin_of(confidence: float) -> int:
    return sum(confidence >= edge for edge in _EDGES) - 1


def _bins(found: Mapping[int, list[tuple[float | None, Verdict]]]) -> tuple[Bin, ...]:
    return tuple(
        _bin(f"{100 * edge:.0f} to {100 * edge + 20:.0f} %", found.get(place, ()))
        for place, edge in enumerate(_EDGES)
    )


_RANKS = ("rank 1", "ranks 2 to 4", "ranks 5 and up")


def _rank_name(rank: int) -> str:
    return _RANKS[0] if rank == 1 else _RANKS[1] if rank <= 4 else _RANKS[2]


def _bin(name: str, found: Iterable[tuple[float | None, Verdict]]) -> Bin:
    rows = list(found)
    stated = [one for one, _ in rows if one is not None]
    return Bin(
        name=name,
        stated=sum(stated) / len(stated) if stated else None,
        judged=len(rows),
        confirmed=sum(verdict is Verdict.CONFIRMED for _, verdict in rows),
        plausible=sum(verdict is not Verdict.UNRELATED for _, verdict in rows),
    )
