"""Nearest-neighbour search behind one small protocol: hnswlib, and an exact one in memory.

A distributed vector database would be a third class here. Files are hashed before they are opened (`bundles.manifest`): hnswlib does not
survive crafted files.
"""

import errno
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Protocol

import hnswlib
import numpy as np
import numpy.typing as npt

from wherefrom.errors import BundleCorrupt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

#: For each row the first one that it is a copy of, beside the graphs of a bundle; all of them hold the same rows.
ORIGINALS = "originals.npy"

_M = 24
_EF_CONSTRUCTION = 200
_SEED = 7


def unit_rows(vectors: Vectors) -> Vectors:
    """Vectors `[N, P]` brought to unit length."""
    unit: Vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)
    return unit


class VectorIndex(Protocol):
    """Finds the stored unit vectors with the largest inner product with a query; the query's length does not change the order."""

    def __len__(self) -> int:
        """Number of stored vectors."""

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """Rows and inner products of the `count` nearest (fewer if fewer are stored), best first; `query` is `[P]`."""


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


class HnswIndex:
    """Approximate search by hnswlib (Malkov & Yashunin, arXiv:1603.09320); built with one thread, so the same input gives the same graph.

    The graph holds one vector per group of copies: among many equal ones its links lead nowhere else, and the other rows are lost.
    """

    def __init__(self, index: "hnswlib.Index", originals: Rows) -> None:
        self._index = index
        self._originals = originals
        #: Rows group by group, each group in the order of its rows; where each begins, and its first row.
        self._order = np.argsort(originals, kind="stable").astype(np.int64)
        self._first, self._starts = np.unique(originals[self._order], return_index=True)

    @classmethod
    def build(cls, vectors: Vectors, originals: Rows | None = None) -> "HnswIndex":
        """Index the rows of `[N, P]` unit vectors under their row numbers.

        Args:
            vectors: the unit vectors.
            originals: for each row the first one that it is a copy of, itself where it is none; see `originals_of`.
        """
        rows = np.arange(len(vectors), dtype=np.int64)
        originals = rows if originals is None else originals
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        kept = rows[originals == rows]
        index.init_index(max_elements=len(kept), M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED)
        index.add_items(vectors[kept], kept, num_threads=1)
        return cls(index, originals)

    @classmethod
    def load(cls, file: Path, *, dimensions: int, originals: Rows) -> "HnswIndex":
        """Open what `save` wrote.

        Raises:
            BundleCorrupt: the file is no index of the vectors that are no copies.
        """
        count = len(np.unique(originals))
        index = hnswlib.Index(space="ip", dim=dimensions)
        try:
            index.load_index(str(file), max_elements=count)
        except RuntimeError as error:
            raise BundleCorrupt(f"{file}: not an HNSW index: {error}") from error
        if index.get_current_count() != count:
            raise BundleCorrupt(
                f"{file}: has {index.get_current_count()} vectors, but the manifest says {count}"
            )
        return cls(index, originals)

    def save(self, file: Path) -> None:
        """Write the graph and the vectors.

        Raises:
            OSError: the file is incomplete; hnswlib itself does not look.
        """
        self._index.save_index(str(file))
        if file.stat().st_size != self._index.index_file_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    def __len__(self) -> int:
        return len(self._originals)

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`; copies stand beside each other."""
        wanted = min(count, self._index.get_current_count())
        self._index.set_ef(max(100, 2 * wanted))
        found, distances = self._index.knn_query(query[None], k=wanted, num_threads=1)
        groups = np.searchsorted(self._first, found[0].astype(np.int64))
        ends = np.append(self._starts[1:], len(self._order))
        members = [self._order[self._starts[group] : ends[group]][:count] for group in groups]
        scores = np.repeat((1.0 - distances[0]).astype(np.float32), [len(one) for one in members])
        return np.concatenate(members)[:count], scores[:count]


def originals_of(keys: Sequence[Hashable]) -> Rows:
    """For each row the first one with the same key, `[N]`."""
    first: dict[Hashable, int] = {}
    return np.array([first.setdefault(key, row) for row, key in enumerate(keys)], dtype=np.int64)
