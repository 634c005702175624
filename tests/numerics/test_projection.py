"""The projection stays in its budget, keeps inner products and survives its file; HNSW finds what exact search finds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny import opened, shared_micro_bundle, token_factors
from wherefrom.attribution.factors import FactorStore
from wherefrom.attribution.kernel import kernel_scores
from wherefrom.attribution.ranking_metrics import spearman_rows
from wherefrom.attribution.retrieval.hnsw_index import HnswIndex
from wherefrom.attribution.retrieval.index import ExactIndex, originals_of
from wherefrom.attribution.retrieval.projection import DIMENSIONS, Projection, ProjectionSize, choose_size
from wherefrom.errors import BundleCorrupt

#: Spearman between inner products of projected vectors and the exact cosine, over the corpus, mean of 20 queries.
KEEPS_COSINES = 0.9
#: Share of the exact 20 nearest that HNSW finds.
HNSW_RECALL = 0.97


def test_inner_products_estimate_the_cosine() -> None:
    """Inner products of projected vectors rank the corpus as the exact kernel does."""
    bundle = opened()
    rows = np.arange(0, len(bundle.store), 8)
    store = token_factors(bundle)
    packed = store.range(0, len(store))
    kernel = kernel_scores(store.gather(rows).unpack(), packed).numpy()
    exact = kernel / (bundle.store.norms[rows][:, None] * bundle.store.norms[None])
    estimated = np.asarray(bundle.vectors)[rows] @ np.asarray(bundle.vectors).T
    assert float(spearman_rows(exact, estimated).mean()) > KEEPS_COSINES
    assert float(np.abs(estimated).max()) < 1.05


def test_queries_are_projected_as_the_corpus_was() -> None:
    """`apply` on a row's factors is the stored vector of that row."""
    bundle = opened()
    norms = torch.from_numpy(bundle.store.norms[:3].copy())
    vectors = bundle.projection.apply(token_factors(bundle).range(0, 3).unpack(), norms)
    np.testing.assert_allclose(vectors.numpy(), bundle.vectors[:3], rtol=1e-4, atol=1e-5)


def test_file_round_trip(tmp_path: Path) -> None:
    """What is loaded is bit for bit what was saved, and the file fits the size that was promised."""
    store = FactorStore(shared_micro_bundle() / "features")
    fitted = Projection.fit(store, ProjectionSize(8, 4, 20))
    fitted.save(tmp_path / "p.safetensors")
    loaded = Projection.load(tmp_path / "p.safetensors")
    for name in ("bases_a", "bases_b", "core", "core_scale"):
        assert torch.equal(getattr(loaded, name), getattr(fitted, name)), name
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "p.safetensors").read_bytes()


def test_broken_file(tmp_path: Path) -> None:
    """A file that is no projection is a corrupt bundle."""
    file = tmp_path / "p.safetensors"
    file.write_bytes(b"nothing")
    with pytest.raises(BundleCorrupt, match="not a projection"):
        Projection.load(file)


@given(
    groups=st.integers(1, 5),
    width_a=st.integers(8, 4096),
    width_b=st.integers(8, 4096),
    examples=st.integers(1, 100_000),
    budget_bytes=st.integers(200_000, 2_000_000_000),
)
def test_size_respects_the_budget(
    *, groups: int, width_a: int, width_b: int, examples: int, budget_bytes: int
) -> None:
    """Whatever the model's shape, the module has at most the base model's bytes and sensible ranks."""
    size = choose_size(
        groups=groups, width_a=width_a, width_b=width_b, examples=examples, budget_bytes=budget_bytes
    )
    assert 1 <= size.rank_a <= width_a
    assert 1 <= size.rank_b <= width_b
    assert 1 <= size.dimensions <= min(DIMENSIONS, examples)
    smallest = ProjectionSize(4, 4, 1).bytes(groups, width_a, width_b)
    if smallest + 4096 <= budget_bytes:
        assert size.bytes(groups, width_a, width_b) + 4096 <= budget_bytes


def test_bundle_keeps_the_budget(tiny_bundle: Path) -> None:
    """The file of a real bundle is no larger than the model's weights, and the manifest says its share."""
    manifest = opened().manifest
    written = (tiny_bundle / "projection.safetensors").stat().st_size
    assert written == manifest.projection.bytes
    assert written <= manifest.model.weight_bytes
    assert manifest.projection.share_of_model == pytest.approx(written / manifest.model.weight_bytes)


def random_vectors(count: int, width: int, *, seed: int) -> np.ndarray:
    """Unit vectors around a few centres."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(20, width))
    vectors = centres[generator.integers(0, 20, count)] + 0.7 * generator.normal(size=(count, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_hnsw_recall() -> None:
    """The graph finds the exact nearest, for the query and for its negative."""
    vectors, queries = random_vectors(2000, 32, seed=1), random_vectors(30, 32, seed=2)
    graph, exact = HnswIndex.build(vectors), ExactIndex(vectors)
    for sign in (1, -1):
        found = [
            len(set(graph.search(sign * query, 20)[0]) & set(exact.search(sign * query, 20)[0]))
            for query in queries
        ]
        assert np.mean(found) / 20 >= HNSW_RECALL, f"sign {sign}"


def test_hnsw_scores_and_order() -> None:
    """Inner products come back best first; a query's length changes no order; a small index gives all it has."""
    vectors = random_vectors(50, 8, seed=3)
    graph = HnswIndex.build(vectors)
    rows, products = graph.search(3 * vectors[7], 500)
    assert rows[0] == 7
    assert len(rows) == len(graph) == 50
    assert list(rows) == list(graph.search(vectors[7], 500)[0])
    np.testing.assert_allclose(products, vectors[rows] @ (3 * vectors[7]), rtol=1e-4, atol=1e-5)
    assert all(products[:-1] >= products[1:])


def test_hnsw_with_duplicates() -> None:
    """A corpus of nothing but copies still gives as many rows as were asked for."""
    same = np.tile(random_vectors(1, 16, seed=4), (600, 1))
    for query in (same[0], -same[0]):
        assert len(set(HnswIndex.build(same).search(query, 256)[0])) == 256


def test_hnsw_finds_what_stands_among_copies() -> None:
    """900 copies of one row do not hide 100 others; copies come together, in the order of their rows, and never more than asked for."""
    others = random_vectors(100, 16, seed=6)
    vectors = np.concatenate([np.tile(random_vectors(1, 16, seed=7), (900, 1)), others])
    originals = originals_of([*["copy"] * 900, *range(100)])
    graph = HnswIndex.build(vectors, originals)
    assert len(graph) == 1000
    for row in range(900, 1000):
        assert graph.search(vectors[row], 5)[0][0] == row
    assert graph.search(vectors[0], 64)[0].tolist() == list(range(64))
    nearest = graph.search(vectors[950], 1000)[0]
    assert sorted(nearest.tolist()) == list(range(1000))


def test_hnsw_file(tmp_path: Path) -> None:
    """The same vectors give the same file; a file of another size is refused."""
    vectors = random_vectors(60, 8, seed=5)
    for name in ("one", "two"):
        HnswIndex.build(vectors).save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    loaded = HnswIndex.load(tmp_path / "one", dimensions=8, originals=np.arange(60))
    assert loaded.search(vectors[3], 1)[0].tolist() == [3]
    with pytest.raises(BundleCorrupt, match=r"60 vectors, but the manifest says 61|not an HNSW index"):
        HnswIndex.load(tmp_path / "one", dimensions=8, originals=np.arange(61))
    (tmp_path / "one").write_bytes(b"short")
    with pytest.raises(BundleCorrupt, match="not an HNSW index"):
        HnswIndex.load(tmp_path / "one", dimensions=8, originals=np.arange(60))


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), count=st.integers(1, 80), wanted=st.integers(1, 100))
def test_hnsw_finds_distinct_rows(seed: int, count: int, wanted: int) -> None:
    """Never a row twice, never more than there are."""
    vectors = random_vectors(count, 6, seed=seed)
    rows, _ = HnswIndex.build(vectors).search(vectors[0], wanted)
    assert len(rows) == len(set(rows.tolist())) == min(count, wanted)
