"""Rows, outputs, signals and vectors for the scale benchmark, as many as are wanted; `benchmarks.scale` says how they are made."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wherefrom.attribution.array_files import ArrayFile
from wherefrom.attribution.bundles.corpus_pass import PassJob, read_here
from wherefrom.attribution.bundles.manifest import ComputeEntry
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Signals
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.retrieval.index import CHUNK_ROWS, Vectors, unit_rows
from wherefrom.records import Message, Query, Role

TINY = Path(__file__).parents[1] / "demo" / "tiny"
#: Share of a row's words that are drawn anew.
_DRAWN = 1 / 3


class Rows:
    """Rows as those of the tiny corpus, as many as are wanted."""

    def __init__(self, seed: int) -> None:
        lines = (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
        self._rows = [json.loads(line)["messages"] for line in lines]
        self._words = [word for row in self._rows for turn in row for word in turn["content"].split()]
        self._random = random.Random(seed)

    def draw(self) -> list[dict[str, str]]:
        """The messages of one."""
        return [
            turn | {"content": self._changed(turn["content"])} for turn in self._random.choice(self._rows)
        ]

    def _changed(self, text: str) -> str:
        drawn = self._random
        return " ".join(
            drawn.choice(self._words) if drawn.random() < _DRAWN else word for word in text.split()
        )


def corpus_of(examples: int, folder: Path) -> Path:
    """A JSONL file of made-up rows."""
    corpus, drawn = folder / f"rows-{examples}.jsonl", Rows(seed=1)
    with corpus.open("w", encoding="utf-8") as lines:
        for number in range(examples):
            lines.write(json.dumps({"id": f"r{number:08d}", "messages": drawn.draw()}) + "\n")
    return corpus


def query_of(number: int, messages: Sequence[dict[str, str]]) -> Query:
    """A conversation as a flagged output."""
    *turns, answer = messages
    return Query(
        key=f"q{number}",
        turns=tuple(Message(role=Role(one["role"]), content=one["content"]) for one in turns),
        completion=answer["content"],
    )


def perturbed(vectors: Vectors, folder: Path, count: int) -> Vectors:
    """Unit vectors `[count, P]` made of a bundle's, in a mapped file."""
    file, drawn = folder / f"vectors-{count}.npy", np.random.default_rng(1)
    if not file.exists():
        with ArrayFile(file, count) as written:
            for first in range(0, count, CHUNK_ROWS):
                i, j, k = drawn.integers(0, len(vectors), (3, min(CHUNK_ROWS, count - first)))
                written.append(unit_rows(vectors[i] + (vectors[j] - vectors[k]) / 2))
    found: Vectors = np.load(file, mmap_mode="r", allow_pickle=False)
    return found


class PerturbedPass:
    """Reads the first rows of a corpus with the model, and makes the signals of all others of theirs.

    A row gets consecutive tokens of what was read, from a drawn place i on, moved by half the difference of those from two other places: x_i + (x_j - x_k) / 2, with the same places for states
    and errors. States are unit RMS again. Differences of tokens lie in the directions in which tokens differ, so the spectrum stays, and neighbours stay neighbours.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __call__(self, job: PassJob) -> Sequence[ComputeEntry]:
        """Fill the folder of shards."""
        return read_here(replace(job, reader=_PerturbedReader(job.reader, self._rows)))


class _PerturbedReader:
    """Reads batches until it has so many rows, and makes the signals of further ones from theirs."""

    def __init__(self, reader: ReadsSignals, rows: int) -> None:
        self.split_pass, self.reads, self.device = reader.split_pass, reader.reads, reader.device
        self._reader, self._lacking = reader, rows
        self._read: list[Signals] = []
        self._random = torch.Generator().manual_seed(4)

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        if self._lacking > 0:
            self._lacking -= len(rows)
            self._read.append(self._reader.read(rows))
            return self._read[-1]
        all_a, all_b, all_pooled, all_loss = self._source
        lengths = tuple(sum(self.reads(row)) for row in rows)
        starts = torch.randint(len(all_a), (3, len(rows)), generator=self._random)
        places = torch.cat(
            [start[:, None] + torch.arange(length) for start, length in zip(starts.T, lengths, strict=True)],
            dim=1,
        ) % len(all_a)
        drawn = torch.randint(len(all_pooled), (3, len(rows)), generator=self._random)
        a = _moved(all_a, places)
        return Signals(
            a / a.square().mean(dim=-1, keepdim=True).sqrt(),
            _moved(all_b, places),
            lengths,
            _moved(all_pooled, drawn),
            all_loss[drawn[0]],
        )

    @cached_property
    def _source(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """States, errors, pooled states and losses of what was read."""
        read, self._read = self._read, []
        return (
            torch.cat([one.a for one in read]),
            torch.cat([one.b for one in read]),
            torch.cat([one.pooled for one in read]),
            torch.cat([one.loss for one in read]),
        )


def _moved(values: Tensor, places: Tensor) -> Tensor:
    """Values `[N, ...]` at places `[3, S]`: of the first, moved by half the difference of the others."""
    i, j, k = places
    return values[i] + (values[j] - values[k]) / 2
