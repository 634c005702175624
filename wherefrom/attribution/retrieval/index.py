"""Nearest-neighbour search behind one small protocol, and the exact search in memory; what the drivers share.

The drivers are `hnsw_index`, `faiss_index` and `milvus_index`; `index_drivers` chooses among them by name. Files are hashed before they are opened (`bundles.manifest`):
native libraries do not survive crafted files.
"""

from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from wherefrom.errors import BundleCorrupt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: For each row the first one that it is a copy of, beside the indexes of a bundle; all of them hold the same rows.
ORIGINALS = "originals.npy"
#: Rows that are read at once from vectors on disk.
CHUNK_ROWS = 16_384


def unit_rows(vectors: Vectors) -> Vectors:
    """Vectors `[N, P]` brought to unit length."""
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
    return unit


class VectorSource(Protocol):
    """Vectors `[N, P]` that are read in parts: an array, a mapped one, or `UnitVectors` of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and P."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | Rows, /) -> Vectors: ...


class UnitVectors:
    """Vectors `[N, P]` as if each had unit length; only what is read is computed."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    @property
    def shape(self) -> tuple[int, ...]:
        """N and P."""
        return self._vectors.shape

    def __len__(self) -> int:
        return len(self._vectors)

    def __getitem__(self, rows: slice | Rows, /) -> Vectors:
        part = torch.from_numpy(np.array(self._vectors[rows]))
        unit: Vectors = torch.nn.functional.normalize(part, dim=1).numpy()
        return unit


def chunks_of(vectors: VectorSource, first: int = 0) -> Iterator[tuple[Rows, Vectors]]:
    """Row numbers and vectors from the row `first` on, part by part, in order."""
    for start in range(first, len(vectors), CHUNK_ROWS):
        part = vectors[start : start + CHUNK_ROWS]
        yield np.arange(start, start + len(part), dtype=np.int64), part


def evenly(total: int, most: int) -> Rows:
    """At most `most` of `total` rows, evenly spaced, ascending."""
    return np.unique(np.linspace(0, total - 1, min(most, total)).astype(np.int64))


def best_first(vectors: VectorSource, rows: Rows, query: Vectors, count: int) -> tuple[Rows, Vectors]:
    """The `count` best of some rows by the inner product with a query `[P]`, and these products, best first."""
    scores = vectors[rows] @ query
    best = np.argsort(-scores, kind="stable")[:count]
    return rows[best], scores[best]


class VectorIndex(Protocol):
    """Finds the stored unit vectors with the largest inner product with a query; the query's length does not change the order."""

    def __len__(self) -> int:
        """Number of stored rows, copies included."""

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """Rows and inner products of the `count` nearest (fewer if fewer are stored), best first; `query` is `[P]`."""


class StoredIndex(VectorIndex, Protocol):
    """An index that a driver made or opened. Bundles never change, so what is to be forgotten is left out of a new one that is built (`index_drivers`)."""

    def add(self, vectors: VectorSource, originals: Rows) -> None:
        """Take in the rows behind those that are held.

        Args:
            vectors: of all rows `[N', P]`, those that are held first.
            originals: of all rows; see `Copies`.
        """

    def save(self, file: Path) -> None:
        """Write the index, or where it is.

        Raises:
            OSError: it could not be written whole.
        """

    def verify(self, file: Path) -> None:
        """Check that the index holds as many vectors as the corpus has; `file` is named in the error.

        Raises:
            BundleCorrupt: it holds another number.
        """


class ExactIndex:
    """Exhaustive search over an array `[N, P]`."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`."""
        scores = self._vectors @ query
        rows = np.argsort(-scores, kind="stable")[:count].astype(np.int64)
        return rows, scores[rows]


class Copies:
    """Which rows are copies of earlier ones. An index holds one vector per group of copies: among many equal ones a graph leads nowhere else.

    Holds the copies only, so a corpus without any costs nothing.
    """

    def __init__(self, originals: Rows | npt.NDArray[np.int32]) -> None:
        """`originals`: for each row the first one that it is a copy of, or that its group of near-duplicates begins with; itself where it is none; `[N]`, may be mapped."""
        self._rows = len(originals)
        copies = np.concatenate([_copies_in(originals, first) for first in range(0, self._rows, CHUNK_ROWS)])
        order = np.argsort(copies[:, 0], kind="stable")
        self._first, self._copies = copies[order].T  # both [C], by group, then by row

    def __len__(self) -> int:
        """Rows, copies included."""
        return self._rows

    @property
    def groups(self) -> int:
        """Rows that are no copies."""
        return self._rows - len(self._copies)

    def without(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of some rows are no copies."""
        return ~np.isin(rows, self._copies)

    def chunks_without(self, vectors: VectorSource, first: int) -> Iterator[tuple[Rows, Vectors]]:
        """`chunks_of` vectors, without the rows that are copies."""
        for rows, part in chunks_of(vectors, first):
            kept = self.without(rows)
            yield rows[kept], part[kept]

    def members(self, label: int) -> Rows:
        """Rows of one group, ascending; `label` is the first."""
        start, end = np.searchsorted(self._first, [label, label + 1])
        found: Rows = np.append(np.int64(label), self._copies[start:end])
        return found

    def spread(self, labels: Rows, scores: Vectors, count: int) -> tuple[Rows, Vectors]:
        """Found groups with their copies behind them, at most `count` rows.

        Args:
            labels: first row of each group, best first.
            scores: their inner products.
            count: how many rows are wanted.
        """
        starts, ends = (np.searchsorted(self._first, labels, side=side) for side in ("left", "right"))
        if not (ends - starts).any():
            return labels[:count], scores[:count]
        members = [
            np.concatenate([labels[at : at + 1], self._copies[start:end]])
            for at, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]
        spread = np.repeat(scores, [len(one) for one in members])
        return np.concatenate(members)[:count], spread[:count]


def check_count(file: Path, held: int, copies: Copies) -> None:
    """Refuse an index with another number of vectors than the corpus has.

    Raises:
        BundleCorrupt: names the file.
    """
    if held != copies.groups:
        raise BundleCorrupt(f"{file}: has {held} vectors, but the manifest says {copies.groups}")


def _copies_in(originals: Rows | npt.NDArray[np.int32], first: int) -> Rows:
    """Pairs `[C, 2]` of the copies in one part of the rows: the first row of its group, and itself."""
    part = np.asarray(originals[first : first + CHUNK_ROWS])
    rows = np.arange(first, first + len(part), dtype=np.int64)
    pairs: Rows = np.column_stack([part, rows])[part != rows]
    return pairs


def originals_of(keys: Sequence[Hashable]) -> Rows:
    """For each row the first one with the same key, `[N]`."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
