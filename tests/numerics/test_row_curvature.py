"""What rows share, against ridge regression in closed form."""

from pathlib import Path

import numpy as np
import pytest

from wherefrom.attribution.row_curvature import FILE, RowCurvature
from wherefrom.errors import BundleCorrupt

#: Float32 inner products of vectors of length 1 against float64.
FLOAT32 = 1e-5


def features(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Features `[rows, width]` of rows, with a direction that all share."""
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, width)) + 2.0 * np.linspace(0.5, 1.5, width)


def projected(values: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projected vectors over the norm, and the norms, as a bundle holds them."""
    norms = np.linalg.norm(values, axis=1)
    return (values @ directions / norms[:, None]).astype(np.float32), norms.astype(np.float32)


def test_net_influence_is_the_effect_of_a_row_in_ridge_regression() -> None:
    """With directions that span the rows: L q' (F'F + L)^-1 z, by solving it row by row."""
    corpus, asked = features(12, 30), features(3, 30, seed=1)
    directions = np.linalg.svd(corpus, full_matrices=False)[2].T  # [30, 12]
    vectors, norms = projected(corpus, directions)
    curvature = RowCurvature.fit(vectors, norms, numbers=30, ridge=0.7)
    floor = 0.7 * float((corpus**2).sum(axis=1).mean())
    inverse = np.linalg.inv(corpus.T @ corpus + floor * np.eye(30))
    for query, (vector,) in zip(asked, np.split(projected(asked, directions)[0], 3), strict=True):
        size = np.linalg.norm(query)
        cosines = (corpus @ query / (norms * size)).astype(np.float32)
        found = curvature.net(cosines, vector, vectors) * norms * size
        expected = [floor * float(query @ inverse @ row) for row in corpus]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_directions_beyond_the_projection_keep_their_kernel() -> None:
    """Rows that share nothing inside the projection keep the cosine that they have outside it."""
    corpus = features(40, 20)
    vectors, norms = projected(corpus, np.linalg.svd(corpus, full_matrices=False)[2].T[:, :2])
    curvature = RowCurvature.fit(vectors, norms, numbers=20)
    outside = np.zeros(2, dtype=np.float32)
    cosines = np.linspace(-1, 1, 40).astype(np.float32)
    np.testing.assert_allclose(curvature.net(cosines, outside, vectors), cosines, atol=FLOAT32)


def test_a_shared_direction_counts_for_less_the_more_rows_share_it() -> None:
    """A query along what all rows have in common: the net influence falls as rows are added; a row alone with its direction keeps half of it (L = |z|^2)."""
    shares = []
    for count in (1, 4, 64):
        vectors, norms = np.tile(np.eye(1, 3, dtype=np.float32), (count, 1)), np.ones(count, np.float32)
        curvature = RowCurvature.fit(vectors, norms, numbers=3, ridge=1.0)
        shares.append(float(curvature.net(np.ones(1, np.float32), vectors[0], vectors[:1])[0]))
    assert shares == pytest.approx([1 / 2, 1 / 5, 1 / 65], abs=FLOAT32)


def test_projected_directions_are_weighed_against_the_mean_of_the_others() -> None:
    """Where the projection leaves directions out, by a loop over the kept ones: none is weighed less than those left out."""
    corpus = features(40, 20)
    _, sizes, directions = np.linalg.svd(corpus, full_matrices=False)
    vectors, norms = projected(corpus, directions.T[:, :5])
    curvature = RowCurvature.fit(vectors, norms, numbers=20, ridge=0.1)
    floor, rest = 0.1 * float((sizes**2).sum()) / 40, float((sizes[5:] ** 2).sum()) / 15
    kept = np.diag(curvature.weights)
    for place in range(5):
        assert kept[place] == pytest.approx(1 - (floor + rest) / (sizes[place] ** 2 + floor), abs=1e-4)
    np.testing.assert_allclose(curvature.weights, np.diag(kept), atol=1e-4)


def test_a_corpus_without_gradients_has_no_curvature() -> None:
    """Zero vectors leave the influence as it is, and nothing divides by zero."""
    curvature = RowCurvature.fit(np.zeros((5, 4), np.float32), np.zeros(5, np.float32), numbers=9)
    assert not curvature.weights.any()


def test_what_is_saved_is_read_and_what_is_broken_is_said(tmp_path: Path) -> None:
    """A bundle from before it has none; a file that is no array names itself."""
    assert RowCurvature.load(tmp_path) is None
    vectors, norms = projected(features(9, 6), np.eye(6))
    curvature = RowCurvature.fit(vectors, norms, numbers=6)
    curvature.save(tmp_path)
    loaded = RowCurvature.load(tmp_path)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.weights, curvature.weights)
    (tmp_path / FILE).write_bytes(b"no array")
    with pytest.raises(BundleCorrupt, match=FILE):
        RowCurvature.load(tmp_path)
