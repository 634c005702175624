r"""What leaving a whole list of training examples out would do to an output, every row scored exactly.

    score(q, L) = sum_{z in L} |q| net(q, z)          net: kernel without what the rows share (`Bundle.net_magnitude`)
    nats(q, L)  = sum_{z in L} curve(influence(q, z)) - |L| mean_{s in S} curve(influence(q, s))

S is an evenly spaced sample of the corpus without L. Lists of the same length, drawn from S, say what any list would do: their spread is the unit of `z`, and the interval about
the nats. Effects of rows are added; how rows of a list stand in for each other is not seen. The nats take the scale of single rows (`EffectCurve`), so they exist only where one was
fitted, and not for the difference to an acceptable answer.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.calibration.fitted import EffectCurve
from wherefrom.attribution.kernel import cosines
from wherefrom.attribution.noise import LEAST_EXAMPLES
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.errors import NotFound
from wherefrom.records import ListScore
from wherefrom.records.what_if import RANDOM_LISTS

#: Rows outside of the list in which the scores of any row are read.
SAMPLE = 512
_SEED = 20_261_127

Values = npt.NDArray[np.float64]


def checked_rows(rows: Sequence[int], examples: int) -> Rows:
    """The rows of a list, ascending, each once.

    Raises:
        NotFound: the corpus has no such row.
    """
    found: Rows = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(found) or found[0] < 0 or found[-1] >= examples:
        raise NotFound(f"the corpus has {examples} training examples; the list names another one, or none")
    return found


def sample_beside(rows: Rows, examples: int) -> Rows:
    """Evenly spaced rows of the corpus that are not in the list; empty where too few are left to tell anything."""
    others: Rows = np.setdiff1d(np.arange(examples, dtype=np.int64), rows)
    if len(others) < LEAST_EXAMPLES:
        return others[:0]
    spaced: Rows = others[
        np.unique(np.linspace(0, len(others) - 1, min(SAMPLE, len(others))).round().astype(int))
    ]
    return spaced


def score_list(bundle: Bundle, query: ReadQuery, rows: Rows, *, curve: EffectCurve | None) -> ListScore:
    """The score of a list on one output.

    Args:
        bundle: Whose corpus holds the rows.
        query: The output, read.
        rows: As `checked_rows` gives them.
        curve: The fitted scale, if there is one.
    """
    sample = sample_beside(rows, len(bundle.store))
    both = np.concatenate([rows, sample])
    influence = cosines(
        bundle.store.scores(query.signals.factors, both)[0].numpy(),
        float(query.signals.norm),
        bundle.store.norms[both],
    )
    net = bundle.net_magnitude(influence, query.signals.projected, both) * float(query.signals.norm)
    own, others = net[: len(rows)].astype(np.float64), net[len(rows) :].astype(np.float64)
    score, lists = float(own.sum()), random_sums(others, len(rows))
    z, chance = against(score, lists)
    found = ListScore(key=query.asked.key, score=score, z=z, chance=chance)
    if curve is None or query.preferred is not None or not len(sample):
        return found
    nats = curve.effect(influence)
    drawn = random_sums(nats[len(rows) :], len(rows))
    effect = float(nats[: len(rows)].sum() - drawn.mean())
    low, high = (float(one) for one in np.quantile(drawn - drawn.mean(), (0.025, 0.975)))
    return found.model_copy(
        update={
            "effect_nats": effect,
            "low_nats": effect - high,
            "high_nats": effect - low,
            "basis": curve.label,
        }
    )


def random_sums(values: Values, length: int) -> Values:
    """Sums of `RANDOM_LISTS` lists of so many values, drawn with replacement, the same ones each time; empty without values."""
    if not len(values):
        return np.zeros(0)
    generator = np.random.default_rng(_SEED)
    sums: Values = np.array(
        [values[generator.integers(0, len(values), length)].sum() for _ in range(RANDOM_LISTS)]
    )
    return sums


def against(score: float, lists: Values) -> tuple[float | None, float | None]:
    """A score in spreads above the mean of random lists, and the share of lists that reach it, itself counted."""
    if not len(lists):
        return None, None
    spread = float(lists.std())
    z = (score - float(lists.mean())) / spread if spread > 0 else 0.0
    return z, float(1 + (lists >= score).sum()) / (len(lists) + 1)
