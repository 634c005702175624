"""Packs rows of like length under a token budget, padding included."""

from collections.abc import Sequence


def pack_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of rows in batches whose padded size (longest times number) stays within `budget`.

    Rows are sorted by length, so padding is small; a row longer than the budget stands alone. Every index appears exactly once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and longest * (len(batches[-1]) + 1) <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
