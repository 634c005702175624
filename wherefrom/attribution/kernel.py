r"""The exact influence kernel between a query q and a training example z, token by token.

    k(q, z) = sum_g sum_{t,s} (a~_t^g . a~_s^g)(b~_t^g . b~_s^g)          = sum_g <G~_q^g, G~_z^g>
    cosine  = k(q, z) / (|q| |z|),     |z|^2 = k(z, z)

over kernel groups g (all layers at once for form `forward`, one per layer for `activation`). The `[T_q, T_z]` matrix under the sum is
the explanation: which output token, which token of the training example. Positive = more weight on z lowers the loss of q.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from wherefrom.attribution.factors import Factors, PackedFactors

#: Tokens of training examples that are unpacked to float32 at once.
CHUNK_TOKENS = 8192
#: Numbers of a matrix G~ up to which it is formed for a norm.
_SMALL_MATRIX = 4096
#: Tokens of one row that meet each other at once where its norm is computed token by token.
_SQUARED_TOKENS = 1024
#: Tokens of rows, padding included, whose matrices are formed at once.
_PADDED_TOKENS = 2048


def token_kernel(query: Factors, examples: Factors) -> Tensor:
    """The matrix `[T_q, S]` of token contributions; its sums over examples are their kernel values."""
    total = query.a.new_zeros(len(query.a), len(examples.a))
    for group in range(query.a.shape[1]):
        held = query.a[:, group] @ examples.a[:, group].T  # [T_q, S]
        total += held * (query.b[:, group] @ examples.b[:, group].T)
    return total


def kernel_norms(factors: Factors) -> Tensor:
    """|z| of each row, `[N]`: by the matrices G~_z where they are small (form `adapter`), else token by token."""
    if factors.a.shape[2] * factors.b.shape[2] <= _SMALL_MATRIX:
        return gradient_matrices(factors).flatten(1).square().sum(dim=1).sqrt()
    return torch.stack([_norm_by_tokens(row) for row in factors.rows()])


def _norm_by_tokens(row: Factors) -> Tensor:
    """|z| of one row, scalar, without a square of all tokens of a long one."""
    parts = [
        Factors(a, b, (len(a),))
        for a, b in zip(row.a.split(_SQUARED_TOKENS), row.b.split(_SQUARED_TOKENS), strict=True)
    ]
    total = row.a.new_zeros(())
    for one in parts:
        for other in parts:
            total = total + token_kernel(one, other).sum()
    return total.clamp_min(0.0).sqrt()


def cosines(
    values: npt.NDArray[np.float32], norm: float, norms: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Kernel values `[K]` of one query with examples over the query's norm and the examples' `[K]`; 0 where one of them is 0."""
    found: npt.NDArray[np.float32] = values / np.maximum(norm * norms, 1e-20)
    return found


def gradient_matrices(factors: Factors) -> Tensor:
    """G~ of each row, `[N, G, Db, Da]`.

    Rows are padded and multiplied together: hundreds of groups times one short row are products so small that threads would only wait for each other.
    """
    lengths = list(factors.lengths)
    rows = list(zip(factors.a.split(lengths), factors.b.split(lengths), strict=True))
    parts = []
    for first, last in _padded_ranges(factors.lengths):
        a, b = (pad_sequence(list(side), batch_first=True) for side in zip(*rows[first:last], strict=True))
        parts.append(torch.einsum("ntgi,ntgj->ngij", b, a))  # [n, G, Db, Da]
    return torch.cat(parts)


def _padded_ranges(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ranges of rows with at most `_PADDED_TOKENS` tokens each, padding included (a longer row stands alone)."""
    ranges = []
    first, longest = 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        if index > first and longest * (index + 1 - first) > _PADDED_TOKENS:
            ranges.append((first, index))
            first, longest = index, length
    ranges.append((first, len(lengths)))
    return ranges


def kernel_scores(queries: Factors, examples: PackedFactors) -> Tensor:
    """Kernel values `[Q, N]` of every query with every example, computed where the queries are.

    The scales of the packed factors are applied to the token sums, not to the factors: `[S]` products instead of `[S, G, D]`.
    """
    parts = []
    for first, last in _chunks(examples.lengths):
        parts.append(_scores_of_chunk(queries, examples, first, last))
    return torch.cat(parts, dim=1)


def _scores_of_chunk(queries: Factors, examples: PackedFactors, first: int, last: int) -> Tensor:
    start = sum(examples.lengths[:first])
    lengths = examples.lengths[first:last]
    stop = start + sum(lengths)
    contributions = queries.a.new_zeros(len(queries.lengths), stop - start)  # [Q, S]
    part = examples.tokens(start, stop).to(queries.a.device)
    for group in range(queries.a.shape[1]):
        a, b = part.a[:, group].float(), part.b[:, group].float()
        scale = part.a_scale[:, group] * part.b_scale[:, group]
        pairs = (queries.a[:, group] @ a.T).mul_(queries.b[:, group] @ b.T)  # [sum T_q, S]
        contributions += segment_sum(pairs, queries.lengths) * scale
    return segment_sum(contributions.T.contiguous(), lengths).T


def segment_sum(values: Tensor, lengths: tuple[int, ...]) -> Tensor:
    """Sums over consecutive segments of the first axis: `[S, M]` to `[len(lengths), M]`."""
    if len(lengths) == 1:
        return values.sum(dim=0, keepdim=True)
    counts = torch.tensor(lengths, device=values.device)
    index = torch.repeat_interleave(
        torch.arange(len(lengths), device=values.device), counts, output_size=len(values)
    )
    return values.new_zeros(len(lengths), values.shape[1]).index_add_(0, index, values)


def _chunks(lengths: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ranges of examples with at most `CHUNK_TOKENS` tokens each (a longer example stands alone)."""
    ranges = []
    first, tokens = 0, 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > CHUNK_TOKENS:
            ranges.append((first, index))
            first, tokens = index, 0
        tokens += length
    ranges.append((first, len(lengths)))
    return ranges
