"""Nearest-neighbour search behind one small protocol: hnswlib, and an exact one in memory.

A distributed vector database would be a third class here. Files are hashed before they are opened (`bundles.manifest`): hnswlib does not
survive crafted files.
"""

import errno
import os
from pathlib import Path
from typing import Protocol

import hnswlib
import numpy as np
import numpy.typing as npt

from wherefrom.errors import BundleCorrupt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_M = 24
_EF_CONSTRUCTION = 200
_SEED = 7


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
    """Approximate search by hnswlib (Malkov & Yashunin, arXiv:1603.09320); built with one thread, so the same input gives the same graph."""

    def __init__(self, index: "hnswlib.Index") -> None:
        self._index = index

    @classmethod
    def build(cls, vectors: Vectors) -> "HnswIndex":
        """Index the rows of `[N, P]` unit vectors under their row numbers."""
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(max_elements=len(vectors), M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=1)
        return cls(index)

    @classmethod
    def load(cls, file: Path, *, dimensions: int, count: int) -> "HnswIndex":
        """Open what `save` wrote.

        Raises:
            BundleCorrupt: the file is not an index of `count` vectors.
        """
        index = hnswlib.Index(space="ip", dim=dimensions)
        try:
            index.load_index(str(file), max_elements=count)
        except RuntimeError as error:
            raise BundleCorrupt(f"{file}: not an HNSW index: {error}") from error
        if index.get_current_count() != count:
            raise BundleCorrupt(
                f"{file}: holds {index.get_current_count()} vectors, the manifest says {count}"
            )
        return cls(index)

    def save(self, file: Path) -> None:
        """Write the graph and the vectors.

        Raises:
            OSError: the file is incomplete; hnswlib itself does not look.
        """
        self._index.save_index(str(file))
        if file.stat().st_size != self._index.index_file_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    def __len__(self) -> int:
        count: int = self._index.get_current_count()
        return count

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`."""
        count = min(count, len(self))
        self._index.set_ef(max(100, 2 * count))
        rows, distances = self._index.knn_query(query[None], k=count, num_threads=1)
        return rows[0].astype(np.int64), (1.0 - distances[0]).astype(np.float32)
