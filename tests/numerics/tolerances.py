"""How close two ways to the same number must come: one pair per kind of number."""

from typing import Any, Final

#: Two float32 computations of the same value in another order.
FLOAT32: Final[dict[str, Any]] = {"rtol": 1e-4, "atol": 1e-5}
#: Sums over the whole corpus in float64.
FLOAT64: Final[dict[str, Any]] = {"rtol": 1e-9, "atol": 1e-12}
#: A kernel cosine of factors quantised to int8 against the same in float32.
INT8_COSINE: Final = 0.01
