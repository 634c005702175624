"""The rows and vectors of the scale benchmark are made up as it says, and the memory that it reads is private memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch

from benchmarks.private_memory import highest_private_bytes
from benchmarks.scale_material import PerturbedPass, Rows, perturbed, query_of
from wherefrom.attribution.bundles.corpus_pass import PassJob
from wherefrom.attribution.bundles.manifest import ComputeEntry
from wherefrom.attribution.bundles.plan import BuildPlan
from wherefrom.attribution.bundles.rendering import ignore_note
from wherefrom.attribution.bundles.shards import SHARD_ROWS, ShardFolder
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Signals
from wherefrom.attribution.progress import silent

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


def test_perturbed_pass(tmp_path: Path) -> None:
    """The model reads the first rows alone; further rows get signals of their own lengths, in the directions of those that were read."""
    read: list[int] = []
    rows = [_row(length) for length in (5, 9, 4, 12) * SHARD_ROWS]
    shards = ShardFolder(tmp_path / "raw")
    job = PassJob(
        cast("TokenRows", _Rows(rows)),
        cast("BuildPlan", None),
        _Flat(read),
        shards,
        progress=silent,
        on_note=ignore_note,
        here=ComputeEntry(device="cpu", dtype="float32"),
    )
    assert PerturbedPass(rows=SHARD_ROWS)(job) == (job.here,)
    assert sum(read) == SHARD_ROWS
    found = list(shards.read(len(rows)))
    assert [one.lengths for one in found] == [
        tuple(len(row.explained) for row in rows[at : at + SHARD_ROWS])
        for at in range(0, len(rows), SHARD_ROWS)
    ]
    first, last = found[0], found[-1]
    np.testing.assert_allclose(last.a.square().mean(dim=-1).sqrt(), 1.0, rtol=2e-3)
    assert (last.b[..., 1] == 0).all()
    assert 0.5 < float(last.b[..., 0].std() / first.b[..., 0].std()) < 2
    assert not any((one.pooled == found[0].pooled[0]).all() for one in found[1:])


class _Rows(list[TokenRow]):
    def tokens(self, first: int, end: int) -> int:
        return sum(len(row.ids) for row in self[first:end])


class _Flat:
    """Signals in one direction, without a model; notes how many rows it read."""

    split_pass = True
    device = torch.device("cpu")

    def __init__(self, read: list[int]) -> None:
        self._read = read
        self._random = torch.Generator().manual_seed(1)

    def reads(self, row: TokenRow) -> tuple[bool, ...]:
        return row.explained

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        self._read.append(len(rows))
        lengths = tuple(len(row.explained) for row in rows)
        drawn = [torch.randn(sum(lengths), 1, 2, generator=self._random) for _ in "ab"]
        return Signals(
            drawn[0] / drawn[0].square().mean(dim=-1, keepdim=True).sqrt(),
            drawn[1] * torch.tensor([1.0, 0.0]),
            lengths,
            torch.randn(len(rows), 3, generator=self._random),
            torch.ones(len(rows)),
        )


def _row(length: int) -> TokenRow:
    return TokenRow(tuple(range(length + 1)), 1, (True,) * length)


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
