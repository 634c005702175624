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

import numpy as np
import torch

from wherefrom.attribution.factors import Factors, FactorStore
from wherefrom.attribution.kernel import token_kernel
from wherefrom.attribution.overlap import overlaps
from wherefrom.attribution.passage import Floats, Integers, Passage
from wherefrom.attribution.render import Renderer
from wherefrom.records import EvidenceSpan, Overlap, TrainingExample

#: Pairs of stretches per citation.
MOST_PAIRS = 5
#: Pairs with a smaller share of the mass are not shown.
LEAST_SHARE = 0.02
#: c above: how many times the mean a unit needs to be strong.
STRONG = 1.0
#: Equal entries are all as great as their mean.
_ROUNDING = 1e-5


@dataclass(frozen=True)
class Evidence:
    """What is shown beside a citation's scores."""

    spans: tuple[EvidenceSpan, ...]
    overlaps: tuple[Overlap, ...]


class Explainer:
    """Explains the citations of one bundle; only the cited rows' factors are read."""

    def __init__(self, renderer: Renderer, store: FactorStore) -> None:
        self._renderer = renderer
        self._store = store

    def explain(
        self, query: Factors, output: Passage, examples: Sequence[TrainingExample], *, signs: Sequence[float]
    ) -> list[Evidence]:
        """Evidence of each citation of one query, in the order given.

        Args:
            query: whitened factors of the explained tokens of the output.
            output: its completion with the ranges of these tokens.
            examples: the cited training examples.
            signs: one number per citation; negative for an opponent.
        """
        if not examples:
            return []
        packed = self._store.gather(np.array([example.row for example in examples], dtype=np.int64))
        contributions = token_kernel(query, packed.unpack()).split(list(packed.lengths), dim=1)
        return [
            self._one(matrix if sign >= 0 else -matrix, output, example)
            for matrix, example, sign in zip(contributions, examples, signs, strict=True)
        ]

    def _one(self, contributions: torch.Tensor, output: Passage, example: TrainingExample) -> Evidence:
        count = contributions.shape[1]
        ranges = self._renderer.ranges_of_example(example.prompt, example.completion, count)
        if ranges is None:  # words can be compared all the same
            whole = Passage(example.completion, [(0, len(example.completion))])
            return Evidence((), overlaps(output, whole))
        passage = Passage(example.completion, ranges)
        return Evidence(evidence_spans(contributions.numpy(), output, passage), overlaps(output, passage))


def evidence_spans(
    contributions: Floats, output: Passage, example: Passage, *, strong: float = STRONG
) -> tuple[EvidenceSpan, ...]:
    """Pairs of stretches that hold the most positive mass, strongest first.

    Args:
        contributions: `[T_q, T_z]`, positive where a pair of tokens carries the score.
        output: completion of the query with the ranges of its T_q tokens.
        example: completion of the training example with the ranges of its T_z tokens.
        strong: how many times the mean a unit needs.
    """
    positive = np.maximum(contributions, 0.0)
    total = float(positive.sum(dtype=np.float64))
    if total <= 0.0:
        return ()
    table = output.membership.T @ positive @ example.membership  # [U, V]
    rows = strong_runs(table.sum(axis=1)[None], strong)[:, 1:]  # [R, 2]
    if not len(rows):
        return ()
    profiles = _sums(table, rows)  # [R, V]
    pairs = strong_runs(profiles, strong)  # [K, 3]
    mass = _sums(profiles.T, pairs[:, 1:]).T[pairs[:, 0], np.arange(len(pairs))]  # [K]
    kept = [
        place
        for place in np.argsort(-mass, kind="stable")[:MOST_PAIRS].tolist()
        if mass[place] >= LEAST_SHARE * total
    ]
    return tuple(
        EvidenceSpan(
            output=output.span(*rows[pairs[place, 0]].tolist()),
            example=example.span(*pairs[place, 1:].tolist()),
            share=min(1.0, float(mass[place]) / total),
        )
        for place in kept
    )


def strong_runs(profiles: Floats, strong: float) -> Integers:
    """Runs of entries that are positive and at least `strong` times the mean of their row.

    Args:
        profiles: `[R, V]`, not negative.
        strong: how many times the mean.

    Returns:
        `[K, 3]`: row, first entry, last entry (excluded), in the order of rows and entries.
    """
    needed = (1 - _ROUNDING) * strong * profiles.mean(axis=1, keepdims=True)
    high = (profiles >= needed) & (profiles > 0)
    edges = np.diff(np.pad(high.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # [R, V + 1]
    row, first = np.nonzero(edges == 1)
    last = np.nonzero(edges == -1)[1]
    return np.column_stack([row, first, last]).astype(np.int64)


def _sums(table: Floats, runs: Integers) -> Floats:
    """Sums of the rows of `[U, V]` over runs `[R, 2]` of them, `[R, V]`."""
    until = np.concatenate([np.zeros((1, table.shape[1])), table.cumsum(axis=0, dtype=np.float64)])
    sums: Floats = (until[runs[:, 1]] - until[runs[:, 0]]).astype(np.float32)
    return sums
