"""The kernel against explicitly formed gradient blocks, packed and unpacked, in one chunk and in many."""

import pytest
import torch

from tests.numerics.tolerances import FLOAT32, INT8_COSINE
from wherefrom.attribution import kernel
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.kernel import kernel_norms, kernel_scores, segment_sum, token_kernel

LENGTHS = (3, 1, 7, 2, 12)


def random_factors(
    lengths: tuple[int, ...], *, groups: int = 2, widths: tuple[int, int] = (6, 4), seed: int = 0
) -> Factors:
    """Factors with scales that differ between tokens, as real ones do."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    scale = torch.rand(tokens, 1, 1, generator=generator) * 5 + 0.1
    return Factors(
        torch.randn(tokens, groups, widths[0], generator=generator),
        torch.randn(tokens, groups, widths[1], generator=generator) * scale,
        lengths,
    )


def blocks(row: Factors) -> torch.Tensor:
    """sum_t b_t a_t' of one row, every group flattened behind the other."""
    found = []
    for group in range(row.a.shape[1]):
        block = torch.zeros(row.b.shape[2], row.a.shape[2])
        for token in range(len(row.a)):
            block += torch.outer(row.b[token, group], row.a[token, group])
        found.append(block.flatten())
    return torch.cat(found)


def explicit(queries: Factors, examples: Factors) -> torch.Tensor:
    """Kernel values `[Q, N]` by inner products of blocks."""
    return (
        torch.stack([blocks(row) for row in queries.rows()])
        @ torch.stack([blocks(row) for row in examples.rows()]).T
    )


def cosines(queries: Factors, examples: Factors, values: torch.Tensor) -> torch.Tensor:
    """Kernel values over both norms."""
    return values / (kernel_norms(queries)[:, None] * kernel_norms(examples)[None])


def test_token_kernel_adds_up_to_the_inner_product() -> None:
    """The explanation's entries sum to the inner product of the gradient blocks."""
    query, examples = random_factors((5,), seed=1), random_factors(LENGTHS, seed=2)
    matrix = token_kernel(query, examples)
    assert matrix.shape == (5, sum(LENGTHS))
    sums = torch.stack([part.sum() for part in matrix.split(list(LENGTHS), dim=1)])
    torch.testing.assert_close(sums[None], explicit(query, examples), rtol=1e-4, atol=1e-3)


def test_norm_of_a_row() -> None:
    """|z| is the length of its gradient block."""
    factors = random_factors(LENGTHS, seed=3)
    expected = torch.stack([blocks(row).norm() for row in factors.rows()])
    torch.testing.assert_close(kernel_norms(factors), expected, **FLOAT32)


def test_norms_of_wide_rows() -> None:
    """Where the gradient matrices are too large to be formed, the norms are the same numbers token by token."""
    factors = random_factors(LENGTHS, widths=(80, 60), seed=13)
    expected = torch.stack([blocks(row).norm() for row in factors.rows()])
    torch.testing.assert_close(kernel_norms(factors), expected, rtol=1e-4, atol=1e-3)


def test_gradient_matrices_of_rows_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padding rows to each other changes nothing: not beside a longer row, not for one longer than a whole batch."""
    monkeypatch.setattr(kernel, "_PADDED_TOKENS", 12)
    factors = random_factors((3, 1, 5, 4, 30, 2, 2), groups=3, widths=(4, 6), seed=14)
    expected = torch.stack([torch.einsum("tgi,tgj->gij", row.b, row.a) for row in factors.rows()])
    torch.testing.assert_close(kernel.gradient_matrices(factors), expected, **FLOAT32)


def test_packed_scores() -> None:
    """int8 factors give the kernel's cosine up to the quantisation."""
    queries, examples = (
        random_factors((4, 9), widths=(48, 48), seed=4),
        random_factors(LENGTHS, widths=(48, 48), seed=5),
    )
    scores = kernel_scores(queries, pack(examples))
    assert scores.shape == (2, len(LENGTHS))
    error = cosines(queries, examples, scores) - cosines(queries, examples, explicit(queries, examples))
    assert float(error.abs().max()) < INT8_COSINE
    torch.testing.assert_close(scores, explicit(queries, pack(examples).unpack()), rtol=1e-3, atol=1e-2)


def test_chunks_do_not_matter() -> None:
    """More tokens than fit into one chunk give the same values as the examples one by one."""
    lengths = (3000, 5000, 200, 9000, 10)
    assert sum(lengths) > 2 * kernel.CHUNK_TOKENS
    assert max(lengths) > kernel.CHUNK_TOKENS
    queries, examples = random_factors((3, 2), groups=1, seed=6), random_factors(lengths, groups=1, seed=7)
    packed = pack(examples)
    alone = torch.cat([kernel_scores(queries, pack(row)) for row in examples.rows()], dim=1)
    torch.testing.assert_close(kernel_scores(queries, packed), alone, rtol=1e-4, atol=1e-2)


def test_cosine_with_itself() -> None:
    """An example is its own best proponent: 1 up to the quantisation, and nothing is above 1."""
    factors = random_factors(LENGTHS, widths=(48, 48), seed=8)
    values = cosines(factors, factors, kernel_scores(factors, pack(factors)))
    assert float((values.diagonal() - 1).abs().max()) < INT8_COSINE
    assert float(values.abs().max()) < 1 + INT8_COSINE


def test_zero_factors() -> None:
    """A token without any error contributes nothing and divides by nothing."""
    zeros = Factors(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3), (2,))
    assert float(kernel_norms(zeros)[0]) == 0.0
    assert float(kernel_scores(random_factors((2,), groups=1, widths=(3, 3)), pack(zeros))[0, 0]) == 0.0


def test_segment_sum() -> None:
    """Sums over unequal segments."""
    values = torch.arange(12.0).reshape(6, 2)
    torch.testing.assert_close(
        segment_sum(values, (1, 3, 2)), torch.tensor([[0.0, 1.0], [12.0, 15.0], [18.0, 20.0]])
    )
    torch.testing.assert_close(segment_sum(values, (6,)), values.sum(dim=0, keepdim=True))
