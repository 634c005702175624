"""How far two people agree, and shares with their intervals. Plain Python: the page and the command line use it.

Cohen's kappa over an I x I table of n pairs, with p_ij = n_ij / n, marginal shares r_i and c_i:

    p_o = sum p_ii,   p_e = sum r_i c_i,   kappa = (p_o - p_e) / (1 - p_e)

and its large-sample variance (Fleiss, Cohen and Everitt 1969):

    var = (A + B - C) / (n (1 - p_e)^2)
    A = sum_i p_ii (1 - (r_i + c_i) (1 - kappa))^2
    B = (1 - kappa)^2 sum_{i != j} p_ij (c_i + r_j)^2
    C = (kappa - p_e (1 - kappa))^2

It is 0 where two people always agree, or never, however few pairs there are. There Wilson's interval of p_o, with p_e as it is, takes its place.

References:
    Fleiss, Cohen and Everitt, "Large sample standard errors of kappa and weighted kappa", Psychological Bulletin 72 (1969) 323-327.
    Wilson, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22 (1927) 209-212.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Standard errors of a 95 % interval.
Z95 = 1.959963984540054


@dataclass(frozen=True)
class Kappa:
    """Agreement of two people beyond chance."""

    #: In [-1, 1]; None where chance alone explains all agreement (both always said the same one thing), or there is no pair.
    value: float | None
    #: 95 % interval; None where `value` is.
    low: float | None
    high: float | None
    #: Share of the pairs on which both said the same.
    observed: float
    pairs: int


def cohen_kappa(table: Sequence[Sequence[int]]) -> Kappa:
    """Cohen's kappa of a square table of counts with its 95 % interval.

    Args:
        table: `table[i][j]` targets that the first person found to be i and the second j.
    """
    n = sum(map(sum, table))
    size = range(len(table))
    if n == 0:
        return Kappa(None, None, None, 0.0, 0)
    p = [[table[i][j] / n for j in size] for i in size]
    rows = [sum(p[i]) for i in size]
    columns = [sum(p[i][j] for i in size) for j in size]
    observed = sum(p[i][i] for i in size)
    expected = sum(rows[i] * columns[i] for i in size)
    if expected > 1 - 1e-12:
        return Kappa(None, None, None, observed, n)
    kappa = (observed - expected) / (1 - expected)
    a = sum(p[i][i] * (1 - (rows[i] + columns[i]) * (1 - kappa)) ** 2 for i in size)
    b = (1 - kappa) ** 2 * sum(p[i][j] * (columns[i] + rows[j]) ** 2 for i in size for j in size if i != j)
    c = (kappa - expected * (1 - kappa)) ** 2
    error = math.sqrt(max(0.0, a + b - c) / n) / (1 - expected)
    low, high = kappa - Z95 * error, kappa + Z95 * error
    agreed = sum(table[i][i] for i in size)
    if agreed in {0, n}:
        low, high = ((share - expected) / (1 - expected) for share in wilson(agreed, n))
    return Kappa(kappa, max(-1.0, low), min(1.0, high), observed, n)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, Z95**2
    middle = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, middle - half), min(1.0, middle + half)
