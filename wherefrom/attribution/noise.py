r"""What the influence of unrelated training examples looks like for one output, read off the output's own scores over the corpus; no calibration is needed.

    m = median of influence(q, z) over the corpus,    s = 1.4826 median |influence - m|            most of a corpus has nothing to do with an output
    sign determined:  |influence(q, z)| > |m| + 2 s                                               else the sign is that of noise
    weak:             max_z influence(q, z) <= m + c (ln(N / 2) + g),    c = min((Q.75 - m) / ln 2, (Q.90 - m) / ln 5),   g = -ln(-ln .8)

The second rule asks whether the best score is more than the best of as many unrelated examples: c is the scale of an exponential upper tail, read where a cause of up to a quarter of the
corpus does not reach (the smaller of two quantiles), and the right-hand side is what the largest of N such draws passes once in five times. Tails of unrelated
examples fall faster than that, so few outputs without a cause pass. Both rules only add words: no score, rank or citation changes.

Over large corpora the distribution is that of the projection's estimates of evenly spaced examples. What an estimate leaves out is noise as well: its spread is read off the
candidates, of which both are known, and added to s and to the quantiles.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]

#: Spreads beyond the typical score from which a sign counts, chosen on the choosing half of the deep bank.
SPREADS = 2.0
#: How often the best of unrelated examples passes the limit of weak outputs, were their tail exponential.
PASSING = 0.2
#: Fewer examples have no distribution.
LEAST_EXAMPLES = 20
#: Evenly spaced examples of a corpus that are looked at.
SAMPLE = 4096
_NORMAL = 1.4826


@dataclass(frozen=True)
class Noise:
    """What chance alone gives the influence scores of one output."""

    #: Scores between minus this and this have no sign.
    level: float
    #: A best score up to this is no more than the best of as many unrelated examples.
    best: float

    @classmethod
    def of(cls, influence: Scores, *, examples: int | None = None, error: float = 0.0) -> Self | None:
        """Read it off an output's scores.

        Args:
            influence: of the corpus, or of evenly spaced examples of it.
            examples: of the corpus; as many as there are scores where None.
            error: spread of what the scores leave out.

        Returns:
            None where there are too few scores to tell.
        """
        count = len(influence) if examples is None else examples
        if len(influence) < LEAST_EXAMPLES:
            return None
        middle, upper, high = (float(one) for one in np.quantile(influence, (0.5, 0.75, 0.9)))
        spread = math.hypot(spread_of(influence), error)
        wider = spread / max(spread_of(influence), 1e-12)
        scale = min((upper - middle) / math.log(2), (high - middle) / math.log(5)) * wider
        draws = math.log(count / 2) - math.log(-math.log(1 - PASSING))
        return cls(level=abs(middle) + SPREADS * spread, best=middle + scale * draws)

    def determines(self, influence: float) -> bool:
        """Whether an influence score is large enough to have a sign."""
        return abs(influence) > self.level

    def is_weak(self, best: float) -> bool:
        """Whether the best influence score of an output could be noise."""
        return best <= self.best


def spread_of(values: Scores) -> float:
    """Robust standard deviation about the median."""
    return _NORMAL * float(np.median(np.abs(values - np.median(values))))


def sampled_rows(examples: int) -> npt.NDArray[np.int64]:
    """Rows of a corpus that are looked at, evenly spaced, ascending."""
    return np.unique(np.linspace(0, examples - 1, min(SAMPLE, examples)).round().astype(np.int64))
