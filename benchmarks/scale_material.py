"""Rows, outputs and vectors for the scale benchmark, as many as are wanted; `benchmarks.scale` says how they are made."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wherefrom.attribution.array_files import ArrayFile
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
