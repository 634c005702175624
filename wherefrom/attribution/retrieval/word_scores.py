r"""Computes the BM25 scores of every word and row in parts, as bm25s would of the whole corpus: the same numbers, bit for bit, in the same order.

    S[w, z] = idf(w) t / (k1 (1 - b + b |z| / mean |z|) + t)        t: how often row z has word w
    idf(w)  = ln(1 + (N - n + .5) / (n + .5))                       n: rows with word w

Words are counted block by block of texts. The counts of a block stand in files, sorted by word (a run). When all are known, the runs are merged, a range of words at once: within a word rows
ascend, because the runs are in the order of the corpus. In memory are the vocabulary, 8 bytes for each word of it, and one block or range.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import ArrayFile, mapped

#: Entries that are merged at once.
MERGED_ENTRIES = 1 << 18
_FILES = ("words", "rows", "times", "lengths")

Numbers = npt.NDArray[np.int32]
Entries = tuple[Numbers, npt.NDArray[np.float32]]


class Constants(Protocol):
    """What BM25 is computed with."""

    k1: float
    b: float


class WordCounts:
    """How often each row has each word, in the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {name: ArrayFile(folder / f"{name}.npy") for name in _FILES}
        #: Rows that have each word.
        self._holding = np.zeros(0, dtype=np.int64)
        self._ends = [0]
        #: Rows so far.
        self.rows = 0
        self._length = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()

    def append(self, texts: Sequence[Sequence[int]]) -> None:
        """Count the words of the next rows, given by their numbers; at least one row."""
        lengths = np.array([len(one) for one in texts], dtype=np.int64)
        words = np.fromiter((word for one in texts for word in one), dtype=np.int64, count=lengths.sum())
        rows = np.repeat(np.arange(self.rows, self.rows + len(texts)), lengths)
        entries, times = np.unique(words << 32 | rows, return_counts=True)
        words = entries >> 32
        values = {"words": words, "rows": entries & 0xFFFFFFFF, "times": times, "lengths": lengths}
        for name, value in values.items():
            self._files[name].append(value.astype(np.int32))
        holding = np.bincount(words, minlength=len(self._holding))
        holding[: len(self._holding)] += self._holding
        self._holding = holding
        self._ends.append(self._ends[-1] + len(entries))
        self.rows += len(texts)
        self._length += int(lengths.sum())

    def scores(self, constants: Constants) -> "WordScores":
        """The scores; no row can be added any more."""
        for file in self._files.values():
            file.close()
        words, rows, times, lengths = (mapped(self._folder / f"{name}.npy") for name in _FILES)
        return WordScores(
            words=words,
            rows=rows,
            times=times,
            lengths=lengths,
            ends=self._ends,
            holding=self._holding,
            mean_length=self._length / self.rows,
            constants=constants,
        )


@dataclass(frozen=True, eq=False)
class WordScores:
    """Scores by word, computed when they are read."""

    #: Words `[E]`, ascending within each run, their rows and how often these have them; mapped.
    words: Numbers
    rows: Numbers
    times: Numbers
    #: Words of each row `[N]`, mapped.
    lengths: Numbers
    #: Where the runs end, behind a 0.
    ends: Sequence[int]
    #: Rows that have each word, `[W]`.
    holding: npt.NDArray[np.int64]
    mean_length: float
    constants: Constants

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        """Where the entries of each word begin, `[W + 1]`."""
        return np.concatenate([[0], np.cumsum(self.holding)]).astype(np.int64)

    def parts(self) -> Iterator[Entries]:
        """Rows and scores of all words behind each other, part by part."""
        weights = self._weights()
        places = list(self.ends[:-1])  # of each run: what is not merged yet
        for last in self._ranges():
            found = []
            for run, end in enumerate(self.ends[1:]):
                place = places[run]
                # NumPy would turn the words, which are mapped, into the type of a Python number
                size = int(np.searchsorted(self.words[place:end], np.int32(last)))
                found.append(slice(place, place + size))
                places[run] += size
            for some in _grouped(found, MERGED_ENTRIES):
                yield self._scored(some, weights)

    def _ranges(self) -> Iterator[int]:
        """Ends of ranges of words, each of as many entries as are merged at once, or of one word."""
        starts, first = self.starts, 0
        while first < len(self.holding):
            reached = np.searchsorted(starts, starts[first] + MERGED_ENTRIES, side="right") - 1
            first = max(first + 1, int(reached))
            yield first

    def _scored(self, parts: Sequence[slice], weights: npt.NDArray[np.float32]) -> Entries:
        words, rows, times = (
            np.concatenate([one[part] for part in parts]) for one in (self.words, self.rows, self.times)
        )
        order = np.argsort(words, kind="stable")
        words, rows, times = words[order], rows[order], times[order].astype(np.float32)
        k1, b = self.constants.k1, self.constants.b
        # in bm25s' order and types: float64 by the mean length, float32 at the end
        saturation = k1 * ((1 - b) + b * self.lengths[rows] / self.mean_length)
        return rows, (weights[words] * (times / (saturation + times))).astype(np.float32)

    def _weights(self) -> npt.NDArray[np.float32]:
        """The inverse document frequency of each word, `[W]`."""
        rows = len(self.lengths)
        known, places = np.unique(self.holding, return_inverse=True)
        weights = [
            math.log(1 + (rows - count + 0.5) / (count + 0.5)) if count else 0.0 for count in known.tolist()
        ]
        return np.array(weights, dtype=np.float32)[places]


def _grouped(parts: Sequence[slice], size: int) -> Iterator[list[slice]]:
    """Neighbouring parts of about `size` entries together. Only a range of one word is larger, and its entries are in order as they stand."""
    group, held = list[slice](), 0
    for part in parts:
        group.append(part)
        held += part.stop - part.start
        if held > size:
            yield group
            group, held = [], 0
    if group:
        yield group
