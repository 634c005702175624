"""The rows and vectors of the scale benchmark are made up as it says, and the memory that it reads is private memory."""

from pathlib import Path

import numpy as np

from benchmarks.private_memory import highest_private_bytes
from benchmarks.scale_material import Rows, perturbed, query_of

_MIB = 1 << 20


def test_rows() -> None:
    """Rows differ from each other, are the same for the same seed, and are outputs that can be asked."""
    drawn, again = Rows(seed=1), Rows(seed=1)
    rows = [drawn.draw() for _ in range(200)]
    assert rows == [again.draw() for _ in range(200)]
    assert len({str(row) for row in rows}) > 190
    query = query_of(3, rows[0])
    assert query.completion == rows[0][-1]["content"]


def test_perturbed_vectors(tmp_path: Path) -> None:
    """Vectors have unit length, and vary in the directions in which those that they are made of do."""
    scale = np.array([3.0, 1.0, 0.2, 0.0], dtype=np.float32)
    source = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32) * scale
    found = perturbed(source, tmp_path, 20_000)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-5)
    spread = np.asarray(found).std(axis=0)
    assert spread[0] > spread[1] > spread[2] > spread[3] == 0.0


def test_private_memory() -> None:
    """A mapped file does not count, an array does."""
    with highest_private_bytes() as highest:
        before = highest()
        kept = np.ones(64 * _MIB, dtype=np.uint8)
        assert highest() - before > 60 * _MIB
    assert kept.sum() == 64 * _MIB


def test_private_memory_by_stage() -> None:
    """What a stage held does not count for the next one."""
    with highest_private_bytes() as highest:
        highest.enter("first", 0, 1)
        kept = np.ones(64 * _MIB, dtype=np.uint8)
        highest.enter("second", 0, 1)
        highest.sample()
        del kept
        highest.enter("third", 0, 1)
        highest.sample()
    seen = highest.mib()
    assert list(seen) == ["read corpus", "first", "second", "third"]
    assert min(seen["first"], seen["second"]) - max(seen["read corpus"], seen["third"]) > 50
