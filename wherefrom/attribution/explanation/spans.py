r"""Which words of the output and of the training example carry a citation.

The kernel is a sum over pairs of tokens, k(q, z) = sum_{t,s} M_ts (`kernel`). With o = 1 for a proponent and -1 for an opponent, the mass that carries
the score is P_ts = max(o M_ts, 0); it is summed over the units u of the output and v of the example (`passage`):

    W = A_q' P A_z        A_tu: share of token t in unit u,    sum W = sum P, less what white space and the end of the turn hold

A *strong* unit of the output has sum_v W_uv >= c times the mean over units; stretches are runs of strong units. For each stretch of the output,
stretches of the example are runs of units that are strong in the stretch's own rows of W. The pairs with the greatest mass are
kept. Rows of W belong to one stretch each, so pairs share no mass and their shares add up to at most 1; the rest lies in weaker
pairs. Negative entries are left out, so a share tells where the score comes from, not how much would go with the words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from wherefrom.attribution.explanation.overlap import overlaps
from wherefrom.attribution.explanation.passage import Floats, Integers, Passage
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import Renderer
from wherefrom.attribution.stored import ExampleStore
from wherefrom.records import EvidenceSpan, Overlap, TrainingExample

#: Pairs of stretches per citation.
MOST_PAIRS = 5
#: Pairs with a smaller share of the mass are not shown.
LEAST_SHARE = 0.02
#: c above: how many times the mean a unit needs to be strong.
STRONG = 1.0
#: Completions that are kept divided into words, about 10 KB each for 40 tokens.
KEPT_PASSAGES = 2048
#: Equal entries are all as great as their mean.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Evidence:
    """What is shown beside a citation's scores."""

    spans: tuple[EvidenceSpan, ...]
    overlaps: tuple[Overlap, ...]


class KeepsRanges(Protocol):
    """Knows the characters of the tokens of those training examples whose text alone does not tell them."""

    def of(self, row: int) -> list[Range]:
        """One range per token that has factors; none where the text alone tells them."""


class Explainer:
    """Explains the citations of one bundle; only the cited rows' factors are read, and texts that were cited lately stay divided into words."""

    def __init__(self, renderer: Renderer, store: ExampleStore, shown: KeepsRanges | None = None) -> None:
        self._renderer = renderer
        self._store = store
        self._shown = shown
        self._passages: dict[int, tuple[Passage, bool]] = {}

    def explain(
        self, query: Factors, output: Passage, examples: Sequence[TrainingExample], *, signs: Sequence[float]
    ) -> list[Evidence]:
        """Evidence of each citation of one query, in the order given.

        Args:
            query: whitened factors of tokens of the output.
            output: its completion with the ranges of these tokens.
            examples: the cited training examples.
            signs: one number per citation; negative for an opponent.
        """
        if not examples:
            return []
        rows = np.array([example.row for example in examples], dtype=np.int64)
        carried, counts = self._store.contributions(query, rows)  # [T_q, S]
        lengths = torch.tensor(counts)
        carried *= torch.repeat_interleave(torch.tensor(signs).sign(), lengths)
        found = [self._passage(example, tokens) for example, tokens in zip(examples, counts, strict=True)]
        aligned = [passage for passage, fits in found if fits]
        if len(aligned) < len(found):
            fits = torch.tensor([fits for _, fits in found])
            carried = carried[:, torch.repeat_interleave(fits, lengths)]
        spans = iter(evidence_spans(carried.numpy(), output, aligned))
        return [Evidence(next(spans) if fits else (), overlaps(output, passage)) for passage, fits in found]

    def _passage(self, example: TrainingExample, tokens: int) -> tuple[Passage, bool]:
        """The example's completion, and whether its tokens could be found again; where not, words can be compared all the same."""
        found = self._passages.pop(example.row, None)
        if found is None:
            kept = self._shown.of(example.row) if self._shown is not None else []
            ranges = kept or self._renderer.ranges_of_example(example.prompt, example.completion, tokens)
            whole = [(0, len(example.completion))]
            found = Passage(example.completion, ranges or whole), ranges is not None
        self._passages[example.row] = found  # the latest stands last
        if len(self._passages) > KEPT_PASSAGES:
            del self._passages[next(iter(self._passages))]
        return found


def evidence_spans(
    contributions: Floats, output: Passage, examples: Sequence[Passage], *, strong: float = STRONG
) -> list[tuple[EvidenceSpan, ...]]:
    """Pairs of stretches that hold the most positive mass of each training example, strongest first.

    All examples are handled at once: their units stand behind each other.

    Args:
        contributions: `[T_q, S]`, positive where a pair of tokens carries the score; the tokens of the examples stand behind each other.
        output: completion of the query with the ranges of its T_q tokens.
        examples: completions of the training examples with the ranges of their tokens, S in all.
        strong: how many times the mean a unit needs.
    """
    positive = np.maximum(contributions, 0.0)
    units = np.cumsum([0, *(len(example.units) for example in examples)])  # where each example's begin
    table = _table(positive, output, examples, units)  # [U, V]
    if not table.size:
        return [()] * len(examples)
    until = _summed(table, axis=1)  # [U, V + 1]
    held = np.maximum(until[:, units[1:]] - until[:, units[:-1]], 0.0)  # [U, E]
    rows = strong_runs(held.T, strong)  # [R, 3]: example, units of the output
    down = _summed(table, axis=0)  # [U + 1, V]
    profiles = np.maximum(down[rows[:, 2]] - down[rows[:, 1]], 0.0)  # [R, V]
    belongs = np.repeat(np.arange(len(examples)), np.diff(units)) == rows[:, :1]  # [R, V]
    pairs = strong_runs(np.where(belongs, profiles, -1.0), strong)  # [K, 3]
    across = _summed(profiles, axis=1)
    mass = across[pairs[:, 0], pairs[:, 2]] - across[pairs[:, 0], pairs[:, 1]]  # [K]
    owners = rows[pairs[:, 0], 0]
    totals = _totals(positive, [len(example.ranges) for example in examples])  # [E]
    shares = mass / np.maximum(totals[owners], np.finfo(np.float32).tiny)
    found: list[list[EvidenceSpan]] = [[] for _ in examples]
    for place in np.lexsort((-shares, owners))[: len(shares)].tolist():
        owner, share = int(owners[place]), float(shares[place])
        if share >= LEAST_SHARE and len(found[owner]) < MOST_PAIRS:
            row, first, last = pairs[place].tolist()
            found[owner].append(
                EvidenceSpan(
                    output=output.span(int(rows[row, 1]), int(rows[row, 2])),
                    example=examples[owner].span(first - int(units[owner]), last - int(units[owner])),
                    share=min(1.0, share),
                )
            )
    return [tuple(one) for one in found]


def strong_runs(profiles: npt.NDArray[np.floating], strong: float) -> Integers:
    """Runs of entries that are positive and at least `strong` times the mean of their row.

    Args:
        profiles: `[R, V]`; negative entries belong to no mean and no run.
        strong: how many times the mean.

    Returns:
        `[K, 3]`: row, first entry, last entry (excluded), in the order of rows and entries.
    """
    counts = (profiles >= 0).sum(axis=1, keepdims=True)
    needed = (1 - _ROUNDING) * strong * np.maximum(profiles, 0.0).sum(axis=1, keepdims=True)
    high = (profiles * counts >= needed) & (profiles > 0)
    framed = np.zeros((high.shape[0], high.shape[1] + 2), dtype=np.int8)
    framed[:, 1:-1] = high
    edges = framed[:, 1:] - framed[:, :-1]  # [R, V + 1]
    row, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1]
    return np.stack([row, first, last], axis=1)


def _table(positive: Floats, output: Passage, examples: Sequence[Passage], units: Integers) -> Floats:
    """Mass of every pair of units, `[U, V]`."""
    tokens, rows, shares = output.memberships
    table = np.zeros((len(output.units), positive.shape[1]), dtype=np.float32)  # [U, S]
    np.add.at(table, rows, positive[tokens] * shares[:, None])
    before = np.cumsum([0, *(len(example.ranges) for example in examples)])
    parts = [example.memberships for example in examples]
    tokens = np.concatenate([one[0] + first for one, first in zip(parts, before, strict=False)])
    columns = np.concatenate([one[1] + first for one, first in zip(parts, units, strict=False)])
    shares = np.concatenate([one[2] for one in parts])
    by_units = np.zeros((int(units[-1]), len(table)), dtype=np.float32)  # [V, U]
    np.add.at(by_units, columns, (table[:, tokens] * shares).T)
    return by_units.T


def _summed(values: npt.NDArray[np.floating], *, axis: int) -> npt.NDArray[np.float64]:
    """Cumulative sums with a zero in front."""
    framed = np.concatenate([np.zeros_like(values.take([0], axis=axis)), values], axis=axis)
    return framed.cumsum(axis=axis, dtype=np.float64)


def _totals(positive: Floats, lengths: Sequence[int]) -> npt.NDArray[np.float64]:
    """Mass of each example, `[E]`."""
    until = np.concatenate([[0.0], positive.sum(axis=0, dtype=np.float64).cumsum()])
    edges = np.cumsum([0, *lengths])
    totals: npt.NDArray[np.float64] = until[edges[1:]] - until[edges[:-1]]
    return totals
