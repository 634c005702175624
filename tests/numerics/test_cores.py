"""Cores against the token kernel: scores, contributions of token pairs, and the projection."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numerics.tolerances import FLOAT32, INT8_COSINE
from wherefrom.attribution.cores import CoreStore, CoreWriter, cores_of, sketches, write_sketches
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import kernel_norms, segment_sum, token_kernel
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.errors import BundleCorrupt

GROUPS, RANK = 3, 4
LENGTHS = (5, 2, 7, 1, 4, 6, 3, 2)


def random_factors(lengths: tuple[int, ...], *, seed: int = 1) -> Factors:
    """Factors of rows of the given lengths."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(sum(lengths), GROUPS, RANK, generator=generator) for _ in range(2))
    return Factors(a, b, lengths)


class Whole:
    """A projection that keeps every number."""

    def project(self, cores: Tensor) -> Tensor:
        """The cores themselves."""
        return cores

    def lift(self, projected: Tensor) -> Tensor:
        """The same back."""
        return projected


def written(folder: Path, factors: Factors, projection: CoreProjection | Whole | None = None) -> CoreStore:
    """A store of factors, written in two parts."""
    rows = factors.rows()
    parts = [joined(rows[:3]), joined(rows[3:])]
    with CoreWriter(folder, len(rows)) as writer:
        for part in parts:
            writer.append(part, kernel_norms(part).tolist())
        writer.finish()
    if projection is not None:
        write_sketches(folder, parts, projection)
    return CoreStore(folder, projection)


def joined(rows: list[Factors]) -> Factors:
    """Rows behind each other."""
    return Factors(
        torch.cat([row.a for row in rows]),
        torch.cat([row.b for row in rows]),
        tuple(row.lengths[0] for row in rows),
    )


def test_cores_are_sums_of_outer_products() -> None:
    """By a loop over tokens and layers; inner products are the token kernel's sums."""
    factors = random_factors((3, 2))
    expected = torch.zeros(2, GROUPS, RANK, RANK)
    for token, row in enumerate((0, 0, 0, 1, 1)):
        for group in range(GROUPS):
            expected[row, group] += torch.outer(factors.b[token, group], factors.a[token, group])
    found = cores_of(factors)
    torch.testing.assert_close(found, expected.flatten(1), **FLOAT32)
    first, second = factors.rows()
    torch.testing.assert_close(found[0] @ found[1], token_kernel(first, second).sum(), **FLOAT32)


def test_stored_scores_are_the_kernel(tmp_path: Path) -> None:
    """int8 changes a cosine by less than the usual; rows come back in the order asked for."""
    examples, queries = random_factors(LENGTHS), random_factors((4, 9), seed=2)
    store = written(tmp_path, examples)
    rows = np.array([6, 0, 3, 7])
    expected = segment_sum(token_kernel(queries, examples), queries.lengths)
    expected = segment_sum(expected.T.contiguous(), examples.lengths).T[:, rows]
    sizes = kernel_norms(queries)[:, None] * torch.from_numpy(store.norms[rows])
    assert float(((store.scores(queries, rows) - expected) / sizes).abs().max()) < INT8_COSINE
    assert store.lengths(rows).tolist() == [3, 5, 1, 2]
    assert len(store) == len(LENGTHS)


def test_contributions_with_a_whole_sketch_are_the_token_kernel(tmp_path: Path) -> None:
    """Where the sketch loses nothing, token pairs get what they get from the factors."""
    examples, query = random_factors(LENGTHS), random_factors((6,), seed=3)
    store = written(tmp_path, examples, Whole())
    rows = np.array([2, 5])
    expected = token_kernel(query, joined([examples.rows()[2], examples.rows()[5]]))
    found, lengths = store.contributions(query, rows)
    assert lengths == (7, 6)
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


def test_contributions_add_up_whatever_the_sketch_loses(tmp_path: Path) -> None:
    """Each output token's share is exact with a sketch of two numbers, so the matrix adds up to the score."""
    examples, query = random_factors(LENGTHS), random_factors((6,), seed=3)
    plain = written(tmp_path / "plain", examples)
    small = CoreProjection.fit(plain, budget_bytes=10**6, dimensions=2)
    store = written(tmp_path / "small", examples, small)
    rows = np.array([2, 5])
    found, lengths = store.contributions(query, rows)
    by_token = torch.stack([plain.scores(one, rows)[0] for one in _tokens(query)])  # [T_q, K]
    torch.testing.assert_close(segment_sum(found.T.contiguous(), lengths).T, by_token, rtol=1e-3, atol=1e-3)
    assert sketches(query, small).shape == (6, 2)


def _tokens(query: Factors) -> list[Factors]:
    return [Factors(a[None], b[None], (1,)) for a, b in zip(query.a, query.b, strict=True)]


def test_projection_keeps_cosines_within_the_corpus(tmp_path: Path) -> None:
    """With as many numbers as examples, inner products are the kernel's cosines, before and after the file."""
    examples = random_factors(LENGTHS)
    store = written(tmp_path / "store", examples)
    fitted = CoreProjection.fit(store, budget_bytes=10**6)
    fitted.save(tmp_path / "map.safetensors")
    unit = torch.nn.functional.normalize(cores_of(examples), dim=1)
    for projection in (fitted, CoreProjection.load(tmp_path / "map.safetensors")):
        vectors = projection.apply_all(store)
        assert vectors.shape == (len(LENGTHS), len(LENGTHS))
        assert float((vectors @ vectors.T - unit @ unit.T).abs().max()) < 0.05
        own = projection.apply(examples, kernel_norms(examples))
        assert float((own - vectors).abs().max()) < 0.02


def test_projection_stays_within_its_budget(tmp_path: Path) -> None:
    """The file is not larger than it was allowed to be."""
    store = written(tmp_path / "store", random_factors(LENGTHS))
    budget = 4096 + 3 * (GROUPS * RANK**2 + 4)
    projection = CoreProjection.fit(store, budget_bytes=budget)
    projection.save(tmp_path / "map.safetensors")
    assert projection.dimensions == 3
    assert (tmp_path / "map.safetensors").stat().st_size <= budget


def test_a_folder_without_cores_is_refused(tmp_path: Path) -> None:
    """The error names the folder; so it does where sketches are asked for and missing."""
    with pytest.raises(BundleCorrupt, match="cores cannot be opened"):
        CoreStore(tmp_path / "nothing")
    written(tmp_path / "store", random_factors(LENGTHS))
    with pytest.raises(BundleCorrupt, match="sketches"):
        CoreStore(tmp_path / "store", Whole())
