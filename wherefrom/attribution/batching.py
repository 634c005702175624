"""Packs rows or queries by length, so that padding costs little and a pass keeps to a token budget.

A pass is padded to its longest member, so a pack of `n` costs `n * longest` tokens.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def pack_by_length(items: Sequence[T], *, length: Callable[[T], int], budget_tokens: int) -> list[list[T]]:
    """Packs of similar length, shortest first; every item is in exactly one pack.

    Args:
        items: What to pack, in any order.
        length: Tokens of one item.
        budget_tokens: Most tokens of one pack, padding included. An item above it gets a pack of its own.
    """
    packs: list[list[T]] = []
    for item in sorted(items, key=length):
        # Sorted: this item is the longest of its pack so far, so it alone decides the padding.
        if packs and (len(packs[-1]) + 1) * length(item) <= budget_tokens:
            packs[-1].append(item)
        else:
            packs.append([item])
    return packs


def pack_rows(lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Packs of row numbers, given the tokens of each row."""
    return pack_by_length(range(len(lengths)), length=lengths.__getitem__, budget_tokens=budget_tokens)
