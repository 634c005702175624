"""The one pass over the model at build time: raw signals of the corpus, shard by shard, each written whole or not at all.

A stopped build goes on behind its last finished shard. Raw factors are float16 (error signals with a scale per token) and are
deleted when the bundle is finished. Second moments are added up in float64, in one file, shard after shard: at a width of 4,096 those of every shard would take a gigabyte each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.array_files import write_arrays
from wherefrom.attribution.batching import pack_rows, pass_tokens
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import all_finite
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.errors import OutOfMemory, UnusableModel

#: Rows of one shard.
SHARD_ROWS = 128
#: Bytes from which moments are large, and shards between two times that large ones are written.
_LARGE_MOMENTS, _SHARDS_BETWEEN = 1 << 26, 8
#: Tokens, padding included, of one pass through the model on a CPU.
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class RawShard:
    """Raw signals of consecutive corpus rows."""

    a: Tensor  # [S, La, D] float32
    b: Tensor  # [S, Lb, D] float32
    lengths: tuple[int, ...]
    pooled: Tensor  # [B, D]
    loss: Tensor  # [B]
    context: Tensor | None = None  # [S, F], see `Signals`
    final: Tensor | None = None  # [B, M, D], see `Signals`

    def whitened(self, whitener: Whitener) -> Factors:
        """The shard's factors."""
        return Factors(*whitener.apply(self.a, self.b), self.lengths)


class ShardFolder:
    """The raw shards of one build, and the second moments of those that are finished."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._moments = MomentsFile(folder / "moments.npz")

    def path(self, number: int) -> Path:
        """File of one shard."""
        return self._folder / f"shard-{number:05d}.npz"

    def missing(self, rows: int) -> list[int]:
        """Numbers of the shards that are not finished, or whose moments are not on disk."""
        return [
            number
            for number in range(shard_count(rows))
            if number >= self._moments.shards or not self.path(number).is_file()
        ]

    @staticmethod
    def part(rows: Sequence[TokenRow], number: int) -> Sequence[TokenRow]:
        """The rows of one shard."""
        return rows[number * SHARD_ROWS : (number + 1) * SHARD_ROWS]

    @staticmethod
    def tokens(rows: TokenRows, number: int) -> int:
        """Tokens of one shard."""
        return rows.tokens(number * SHARD_ROWS, (number + 1) * SHARD_ROWS)

    def compute(self, number: int, rows: Sequence[TokenRow], reader: ReadsSignals) -> int:
        """Run one shard through the model and write it; returns the tokens that were read. Shards are computed in ascending order."""
        part = self.part(rows, number)
        raw = compute_shard(part, reader, first=number * SHARD_ROWS)
        write_shard(self.path(number), raw)
        if number >= self._moments.shards:
            self._moments.add(SecondMoments.of(raw.a, raw.b))
        return sum(len(row.ids) for row in part)

    def take_moments(self, moments: Iterable[SecondMoments], *, shards: int) -> None:
        """Take second moments that were summed up elsewhere, of the shards behind those that are in the sums.

        Args:
            moments: in the order of the shards, each of one or several of them.
            shards: how many shards they are of.
        """
        self._moments.take(moments, shards)

    def forget_sums(self) -> None:
        """Begin the sums anew; the shards stay."""
        self._moments.file.unlink(missing_ok=True)
        self._moments = MomentsFile(self._moments.file)

    def moments(self) -> SecondMoments:
        """Second moments of all shards together."""
        return self._moments.total()

    def final(self, rows: int) -> Iterator[Tensor]:
        """Sketches of the final gradients `[B, M, D]` of all shards in corpus order, on the CPU; none where they were not read."""
        for number in range(shard_count(rows)):
            with np.load(self.path(number), allow_pickle=False) as stored:
                if "final" in stored:
                    yield torch.from_numpy(stored["final"])

    def read(self, rows: int) -> Iterator[RawShard]:
        """All shards in corpus order, on the CPU."""
        for number in range(shard_count(rows)):
            with np.load(self.path(number), allow_pickle=False) as stored:
                b = torch.from_numpy(stored["b"]).float() * torch.from_numpy(stored["b_scale"])[..., None]
                yield RawShard(
                    torch.from_numpy(stored["a"]).float(),
                    b,
                    tuple(int(length) for length in stored["lengths"]),
                    torch.from_numpy(stored["pooled"]),
                    torch.from_numpy(stored["loss"]),
                    torch.from_numpy(stored["context"]).float() if "context" in stored else None,
                )


class MomentsFile:
    """Second moments of the first shards of a build, added up in their order.

    Large ones are written after every few shards only; those whose moments a stop lost are computed again.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._total: SecondMoments | None = None
        #: Shards that are in the sums.
        self.shards = 0
        self._written = 0
        if file.is_file():
            with np.load(file, allow_pickle=False) as stored:
                self._total = SecondMoments(stored["a"], stored["b"], int(stored["count"]))
                self.shards = self._written = int(stored["shards"])

    def add(self, moments: SecondMoments) -> None:
        """Add those of the next shard."""
        total = self._merge(moments)
        self.shards += 1
        if self.shards - self._written >= (_SHARDS_BETWEEN if are_large(moments) else 1):
            self._write(total)

    def take(self, moments: Iterable[SecondMoments], shards: int) -> None:
        """Add those of the next shards; they are on disk after `total`."""
        for one in moments:
            self._merge(one)
        self.shards += shards

    def total(self) -> SecondMoments:
        """The sums; what is not on disk yet is written."""
        if self._total is None:
            raise ValueError("no shards: a corpus has at least one row")
        if self._written < self.shards:
            self._write(self._total)
        return self._total

    def _merge(self, moments: SecondMoments) -> SecondMoments:
        if self._total is None:
            self._total = moments
        else:
            self._total.merge(moments)
        return self._total

    def _write(self, total: SecondMoments) -> None:
        write_arrays(self.file, a=total.a, b=total.b, count=total.count, shards=self.shards)
        self._written = self.shards


def are_large(moments: SecondMoments) -> bool:
    """Whether second moments are so large that they are not written for every shard."""
    return moments.a.nbytes + moments.b.nbytes > _LARGE_MOMENTS


def compute_shard(rows: Sequence[TokenRow], reader: ReadsSignals, *, first: int) -> RawShard:
    """Run the rows of one shard through the model.

    Args:
        rows: of the shard.
        reader: of the bundle.
        first: place of its first row in the corpus, from 0.

    Raises:
        UnusableModel: a value is no number; names the row.
        OutOfMemory: a single row does not fit.
    """
    raw = read_rows(rows, reader)
    _check_finite(raw, first)
    return raw


def write_shard(path: Path, raw: RawShard) -> None:
    """Write a shard whole or not at all; the same signals give the same bytes."""
    scale = raw.b.abs().amax(dim=-1).clamp_min(1e-30)  # [S, Lb]
    extra: dict[str, Any] = {}
    if raw.context is not None:
        extra["context"] = raw.context.half().cpu().numpy()
    if raw.final is not None:
        extra["final"] = raw.final.cpu().numpy()
    write_arrays(
        path,
        a=raw.a.half().cpu().numpy(),
        b=(raw.b / scale[..., None]).half().cpu().numpy(),
        b_scale=scale.cpu().numpy(),
        lengths=np.array(raw.lengths),
        pooled=raw.pooled.cpu().numpy(),
        loss=raw.loss.cpu().numpy(),
        **extra,
    )


def _check_finite(raw: RawShard, first: int) -> None:
    """One value that is no number would make every score of the bundle one.

    Raises:
        UnusableModel: names the first row with such a value, counted from 1; `first` is the shard's first row, from 0.
    """
    if all_finite(raw.a, raw.b, raw.pooled, raw.loss, raw.final):
        return
    for index, (a, b) in enumerate(zip(raw.a.split(raw.lengths), raw.b.split(raw.lengths), strict=True)):
        final = None if raw.final is None else raw.final[index]
        if not all_finite(a, b, raw.pooled[index], raw.loss[index], final):
            raise UnusableModel(
                f"training example {first + index + 1} of the corpus: the model's states or losses are not finite; its weights contain NaN or infinity, or this row overflows"
            )


def shard_count(rows: int) -> int:
    """Number of shards for a corpus."""
    return -(-rows // SHARD_ROWS)


def packs_of(rows: Sequence[TokenRow], device: torch.device) -> list[list[int]]:
    """Numbers of the rows of each pass through a model on that device."""
    return pack_rows(
        [len(row.ids) for row in rows],
        pass_tokens(device, BATCH_TOKENS),
        completions=[row.completion_tokens for row in rows],
    )


def read_rows(rows: Sequence[TokenRow], reader: ReadsSignals) -> RawShard:
    """Signals of rows in their order, on the model's device, computed in batches of like length; a batch that does not fit into memory is split in two.

    Raises:
        OutOfMemory: a single row does not fit.
    """
    parts: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, Tensor | None]] = {}
    packs = packs_of(rows, reader.device)
    while packs:
        batch = packs.pop()
        try:
            with memory_errors(f"a batch of {len(batch)} training examples"):
                signals = reader.read([rows[index] for index in batch])
        except OutOfMemory:
            if len(batch) == 1:
                raise
            packs += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            continue
        lengths = list(signals.lengths)
        split = zip(
            batch,
            signals.a.split(lengths),
            signals.b.split(lengths),
            signals.pooled,
            signals.loss,
            [None] * len(batch) if signals.context is None else signals.context.split(lengths),
            [None] * len(batch) if signals.final is None else signals.final,
            strict=True,
        )
        for index, *values in split:
            parts[index] = tuple(values)
    ordered = [parts[index] for index in range(len(rows))]
    contexts = [one[4] for one in ordered if one[4] is not None]
    final = [one[5] for one in ordered if one[5] is not None]
    return RawShard(
        torch.cat([one[0] for one in ordered]),
        torch.cat([one[1] for one in ordered]),
        tuple(len(one[0]) for one in ordered),
        torch.stack([one[2] for one in ordered]),
        torch.stack([one[3] for one in ordered]),
        torch.cat(contexts) if contexts else None,
        torch.stack(final) if final else None,
    )
