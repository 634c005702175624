"""Packs rows or queries by length, so that padding costs little and a pass keeps to a token budget.

A plain pass is padded to its longest member, so a pack of `n` costs `n * longest` tokens. The engine's own pass is split where the completion begins
(`models.signals`): there the prompts are padded to the longest prompt and run once, the completions to the longest completion, and those run forward, backward and
through the head. So the engine packs what has completions of like length: about 6 % of the work on a corpus of short chats, 15 % on the outputs of the demo.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from wherefrom.attribution.interface import PreparedQuery

if TYPE_CHECKING:  # processes without a model pack too
    import torch

T = TypeVar("T")

#: A pass on a GPU takes so many times the tokens of one on a CPU: with fewer, an H100 waits for its kernels to be launched (docs/quality/gpu.md). Where they do not fit, the pass is split.
GPU_TIMES = 8


def pass_tokens(device: "torch.device", on_cpu: int) -> int:
    """Tokens, padding included, of one pass, given those on a CPU."""
    return on_cpu if device.type == "cpu" else on_cpu * GPU_TIMES


def pack_by_length(
    items: Sequence[T],
    *,
    length: Callable[[T], int],
    budget_tokens: int,
    completion: Callable[[T], int] | None = None,
) -> list[list[T]]:
    """Packs of similar length, shortest first; every item is in exactly one pack.

    Args:
        items: What to pack, in any order.
        length: Tokens of one item.
        budget_tokens: Most tokens of one pack, padding included. An item above it gets a pack of its own.
        completion: Completion tokens of one item; where given, like completions are packed, and like lengths among them.
    """
    packs: list[list[T]] = []
    longest = 0
    for item in sorted(
        items, key=length if completion is None else lambda one: (completion(one), length(one))
    ):
        longest = max(longest, length(item))
        if packs and (len(packs[-1]) + 1) * longest <= budget_tokens:
            packs[-1].append(item)
        else:
            packs.append([item])
            longest = length(item)
    return packs


def pack_rows(
    lengths: Sequence[int], budget_tokens: int, *, completions: Sequence[int] | None = None
) -> list[list[int]]:
    """Packs of row numbers, given the tokens of each row, and of its completion."""
    return pack_by_length(
        range(len(lengths)),
        length=lengths.__getitem__,
        budget_tokens=budget_tokens,
        completion=None if completions is None else completions.__getitem__,
    )


def pack_queries(queries: Sequence[PreparedQuery], budget_tokens: int) -> list[list[int]]:
    """Packs of query numbers for the engine's pass."""
    return pack_rows(
        [query.tokens for query in queries],
        budget_tokens,
        completions=[query.completion_tokens for query in queries],
    )


def in_parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in their order, at most `size` at once."""
    left = iter(items)
    while part := list(itertools.islice(left, size)):
        yield part
