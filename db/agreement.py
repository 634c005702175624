"""What the verdicts of people say together: agreement of pairs, and how often blind verdicts bear out what was stated."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import select

from db.models import Citation, Review
from db.session import Database
from db.standing import standing
from wherefrom.agreement import Kappa, cohen_kappa, wilson
from wherefrom.records import Verdict

#: Verdicts that say something about the cause, in the order of the tables.
DECIDING = tuple(one for one in Verdict if one.decides)
#: Lower edges of the bins of stated confidence.
_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class PairAgreement:
    """Two people who judged the same targets."""

    first: str
    second: str
    kappa: Kappa
    #: Targets on which they differ.
    differing: int
    #: Audits on which they differ, the newest first; some of them.
    audits: tuple[int, ...]


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


def pairs(db: Database) -> list[PairAgreement]:
    """Every two people who judged at least one target alike in kind (both blind, or both not); most shared targets first."""
    query = select(
        Review.audit_id, Review.training_example_id, Review.blind, Review.reviewer, Review.verdict
    ).where(Review.verdict.in_(DECIDING), Review.person_id.is_not(None), *standing())
    targets: dict[tuple[int, int | None, bool], dict[str, Verdict]] = defaultdict(dict)
    with db.reading() as session:
        for row in session.execute(query):
            targets[row.audit_id, row.training_example_id, row.blind][row.reviewer] = row.verdict
    both: dict[tuple[str, str], list[tuple[int, Verdict, Verdict]]] = defaultdict(list)
    for (audit_id, _, _), found in targets.items():
        for first, second in combinations(sorted(found), 2):
            both[first, second].append((audit_id, found[first], found[second]))
    made = [_pair(first, second, shared) for (first, second), shared in both.items()]
    return sorted(made, key=lambda one: (-one.kappa.pairs, one.first, one.second))


def _pair(first: str, second: str, shared: list[tuple[int, Verdict, Verdict]]) -> PairAgreement:
    table = [[sum(a is i and b is j for _, a, b in shared) for j in DECIDING] for i in DECIDING]
    differing = [audit_id for audit_id, a, b in shared if a is not b]
    return PairAgreement(
        first, second, cohen_kappa(table), len(differing), tuple(sorted(set(differing), reverse=True)[:5])
    )


def compare(db: Database) -> Comparison:
    """Blind verdicts that stand, by the confidence and the rank of what they judge; one statement."""
    query = (
        select(Review.rank, Review.verdict, Review.person_id, Citation.confidence)
        .outerjoin(Citation, (Citation.audit_id == Review.audit_id) & (Citation.rank == Review.rank))
        .where(Review.blind.is_(True), Review.verdict.in_(DECIDING), *standing())
    )
    by_confidence: dict[int, list[tuple[float | None, Verdict]]] = defaultdict(list)
    by_rank: dict[str, list[tuple[float | None, Verdict]]] = {name: [] for name in _RANKS}
    mixed_in: list[tuple[float | None, Verdict]] = []
    people = set()
    with db.reading() as session:
        for rank, verdict, person_id, confidence in session.execute(query):
            if verdict is None:
                continue  # the query leaves them out
            people.add(person_id)
            if rank is None:
                mixed_in.append((None, verdict))
                continue
            by_rank[_rank_name(rank)].append((confidence, verdict))
            if confidence is not None:
                by_confidence[sum(confidence >= edge for edge in _EDGES) - 1].append((confidence, verdict))
    return Comparison(
        tuple(
            _bin(f"{100 * edge:.0f} to {100 * edge + 20:.0f} %", by_confidence[place])
            for place, edge in enumerate(_EDGES)
        ),
        tuple(_bin(name, found) for name, found in by_rank.items()),
        _bin("drawn at random", mixed_in),
        len(people),
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
