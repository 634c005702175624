"""Effects of single rows out of the bank's halves: each row was in one half of every pair and not in the other, so every pair measures every row.

`signs` has the regression. Here the row is given, the first citation of a query, so nothing is selected for being large: the other rows that stand out are taken in as
there, the row itself is added, and its effect has Student's t of the final fit. The fit tells effects beyond what the rows that are not in it do on average; that
average is what is left of the sum of all effects. It is the effect of leaving the row out of a training on half of the corpus, where the
row is a larger part of what the model learns.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.effects import Effect, effect_by_t
from benchmarks.deep_bank.signs import Floats, fit, taken_in


@dataclass(frozen=True)
class HalvedQuery:
    """One query's losses under the halves, and the rows that stand out among them."""

    #: `[P]` paired differences of losses, and `[P, N]` in which half each row is.
    differences: Floats
    signs: Floats
    #: Sum of the effects of all rows: half of them are missing in each half.
    total: float
    #: Rows that the forward selection takes in.
    taken: tuple[int, ...]

    @classmethod
    def of(
        cls, kept: npt.NDArray[np.bool_], losses: npt.NDArray[np.float32], *, loss_of_all: float
    ) -> "HalvedQuery":
        """Read a query's losses.

        Args:
            kept: `[2 P, N]` rows of each half, members of a pair behind each other.
            losses: `[2 P]` of the query under each half's model.
            loss_of_all: its loss under the model of all rows.
        """
        signs = np.where(kept[0::2], 1.0, -1.0)
        differences = (losses[1::2] - losses[0::2]).astype(np.float64)
        total = 2 * (float(losses.mean()) - loss_of_all)
        return cls(differences, signs, total, tuple(taken_in(differences, signs)))

    def effect(self, row: int) -> Effect:
        """The effect of one row."""
        others = [one for one in self.taken if one != row]
        fitted = fit(self.differences, self.signs, [*others, row])
        beyond, error = fitted[row]
        usual = (self.total - sum(one for one, _ in fitted.values())) / self.signs.shape[1]
        return effect_by_t(beyond + usual, error, len(self.signs) - len(fitted))
