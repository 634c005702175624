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
