"""Which of many audits stand out at a false discovery rate: Benjamini-Hochberg over their conformal p-values.

With the m p-values of a listing in ascending order, p_(1) <= ... <= p_(m), and the level q chosen by the user:

    k = max {i : p_(i) <= i q / m},        all audits with p <= p_(k) pass; none where there is no such i.

Among those that pass, the expected share of false ones is at most q (m_0 / m) <= q, where m_0 counts the audits whose cause is not in the
corpus. That holds for p-values that are valid and positively dependent, which conformal p-values over one set of controls are
(arXiv:2104.08279), and *valid* means: for outputs like the controls that calibrated the bundle. Plain Python, no numpy:
the database and the page use it.

References:
    Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Statist. Soc. B 57 (1995) 289-300.
"""

import math
from collections.abc import Sequence

#: False discovery rate where the user names none.
DEFAULT_FDR = 0.1


def benjamini_hochberg(p_values: Sequence[float], level: float) -> list[bool]:
    """Which p-values pass, in the order given.

    Args:
        p_values: One per audit of the whole listing, each in [0, 1].
        level: The false discovery rate q, in (0, 1).

    Raises:
        ValueError: a p-value or the level is outside of its range.
    """
    limit = passing_limit(p_values, level, tests=len(p_values))
    return [limit is not None and p <= limit for p in p_values]


def passing_limit(p_values: Sequence[float], level: float, *, tests: int) -> float | None:
    """The largest p-value that passes, or None where none does.

    Args:
        p_values: At least all p-values that are not above `level`; larger ones cannot pass and may be left out.
        level: The false discovery rate q, in (0, 1).
        tests: How many p-values there are in all, m.

    Raises:
        ValueError: a p-value or the level is outside of its range, or there are more p-values than tests.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"the false discovery rate must be between 0 and 1, not {level}")
    if len(p_values) > tests:
        raise ValueError(f"{len(p_values)} p-values for {tests} tests")
    ordered = sorted(p_values)
    if ordered and (ordered[0] < 0.0 or ordered[-1] > 1.0):
        raise ValueError(f"p-values must be between 0 and 1; there are {ordered[0]} and {ordered[-1]}")
    passing = [p for rank, p in enumerate(ordered, start=1) if p * tests <= rank * level]
    return passing[-1] if passing else None


def binomial_tail(successes: int, trials: int, chance: float) -> float:
    """P(X >= successes) of a binomial X, summed exactly; the one-sided p-value of so many successes.

    With trials of unequal chances, `chance` their mean, it is an upper bound from one above the expected number on (Hoeffding 1956).

    Args:
        successes: 0 to `trials`.
        trials: Independent trials.
        chance: Of each, in [0, 1].

    Raises:
        ValueError: a number is outside of its range.
    """
    if not 0 <= successes <= trials or not 0.0 <= chance <= 1.0:
        raise ValueError(f"{successes} of {trials} at a chance of {chance} is no binomial count")
    if successes == 0 or chance == 1.0:
        return 1.0
    if chance == 0.0:
        return 0.0
    if successes > trials * chance:
        return min(1.0, _run(successes, trials, chance, step=1))
    return max(0.0, 1.0 - _run(successes - 1, trials, chance, step=-1))


def _run(first: int, trials: int, chance: float, *, step: int) -> float:
    """Sum of binomial probabilities from `first` on, away from the mean, where each is smaller than the one before."""
    odds = chance / (1.0 - chance)
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(first + 1)
        - math.lgamma(trials - first + 1)
        + first * math.log(chance)
        + (trials - first) * math.log1p(-chance)
    )
    total, count = 0.0, first
    while 0 <= count <= trials and term > total * 1e-17:
        total += term
        term *= (trials - count) / (count + 1) * odds if step > 0 else count / (trials - count + 1) / odds
        count += step
    return total


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg q-values in the order given: the smallest false discovery rate at which each passes.

    Args:
        p_values: One per test, all of them, each in [0, 1].
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place], reverse=True)
    found, least = [1.0] * len(p_values), 1.0
    for below, place in enumerate(order):
        rank = len(p_values) - below
        least = min(least, p_values[place] * len(p_values) / rank)
        found[place] = least
    return found
