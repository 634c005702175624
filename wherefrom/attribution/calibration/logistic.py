r"""Logistic regression by Newton's method, for a dozen features and a few thousand rows.

    minimise  sum_i v_i ln(1 + exp(-y_i (x_i . w + c))) + (ridge / 2) |w|^2,     y = +-1, x standardised

v are row weights, the intercept c is not punished. Each step solves (X' D X + ridge I) s = gradient with D = v p (1 - p) and is halved until the loss
falls. Separable data are no trouble: the ridge keeps w finite.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wherefrom.errors import BundleCorrupt, ConfigurationError

Matrix = npt.NDArray[np.float64]

#: Weight of the ridge, in rows.
RIDGE = 1.0
_STEPS = 100
_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted model: logit = (x - centre) / scale . weights + intercept."""

    features: tuple[str, ...]
    centre: Matrix  # [F]
    scale: Matrix  # [F]
    weights: Matrix  # [F]
    intercept: float

    def logits(self, rows: Matrix) -> Matrix:
        """Log odds of each row, `[N]`."""
        logits: Matrix = (rows - self.centre) / self.scale @ self.weights + self.intercept
        return logits

    def to_json(self) -> dict[str, Any]:
        """Numbers by the name of their feature."""
        columns = zip(
            self.features, self.centre.tolist(), self.scale.tolist(), self.weights.tolist(), strict=True
        )
        return {
            "intercept": self.intercept,
            "features": {
                name: {"centre": centre, "scale": scale, "weight": weight}
                for name, centre, scale, weight in columns
            },
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            BundleCorrupt: a number is missing, not finite, or no number.
        """
        try:
            features = content["features"]
            table = np.array(
                [[one["centre"], one["scale"], one["weight"]] for one in features.values()], dtype=np.float64
            ).reshape(-1, 3)
            intercept = float(content["intercept"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleCorrupt(f"a logistic model of the calibration cannot be read: {error}") from error
        if not (np.isfinite(table).all() and np.isfinite(intercept) and (table[:, 1] > 0).all()):
            raise BundleCorrupt("a logistic model of the calibration holds numbers that are not finite")
        return cls(tuple(features), table[:, 0], table[:, 1], table[:, 2], intercept)


def fit_logistic(
    rows: Matrix,
    labels: npt.NDArray[np.bool_],
    *,
    features: tuple[str, ...],
    row_weights: Matrix | None = None,
    ridge: float = RIDGE,
) -> Logistic:
    """Fit the log odds of a label.

    Args:
        rows: `[N, F]`.
        labels: `[N]`.
        features: names of the F columns.
        row_weights: `[N]`, positive; ones where None.
        ridge: see the module's formula.

    Raises:
        ConfigurationError: only one of the two labels occurs.
    """
    if labels.all() or not labels.any():
        raise ConfigurationError(f"nothing to fit: all {len(labels)} rows have the same label")
    weights = np.ones(len(rows)) if row_weights is None else row_weights
    centre, spread = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    design = np.column_stack([(rows - centre) / scale, np.ones(len(rows))])  # [N, F + 1]
    problem = _Problem(design, labels, weights, np.diag([ridge] * rows.shape[1] + [0.0]))
    solution = np.zeros(design.shape[1])
    loss = problem.loss(solution)
    for _ in range(_STEPS):
        step = problem.newton_step(solution)
        while (after := problem.loss(solution - step)) > loss + 1e-12:
            step = step / 2
        solution = solution - step
        if loss - after <= _TOLERANCE * abs(loss):
            break
        loss = after
    return Logistic(features, centre, scale, solution[:-1], float(solution[-1]))


@dataclass(frozen=True, eq=False)
class _Problem:
    """The loss that is minimised."""

    design: Matrix  # [N, F + 1]
    labels: npt.NDArray[np.bool_]
    weights: Matrix  # [N]
    penalty: Matrix  # [F + 1, F + 1]

    def loss(self, solution: Matrix) -> float:
        margins = np.where(self.labels, 1.0, -1.0) * (self.design @ solution)
        return float(self.weights @ np.logaddexp(0.0, -margins) + 0.5 * solution @ self.penalty @ solution)

    def newton_step(self, solution: Matrix) -> Matrix:
        chances = sigmoid(self.design @ solution)
        gradient: Matrix = self.design.T @ (self.weights * (chances - self.labels)) + self.penalty @ solution
        sure = self.weights * chances * (1.0 - chances)
        curvature: Matrix = (self.design * sure[:, None]).T @ self.design + self.penalty
        step = np.linalg.solve(curvature + 1e-10 * np.eye(len(solution)), gradient)
        return np.asarray(step, dtype=np.float64)


def sigmoid(logits: Matrix) -> Matrix:
    """1 / (1 + exp(-x)) without overflow."""
    values: Matrix = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return values
