"""The default driver: one graph in memory by hnswlib (Malkov & Yashunin, arXiv:1603.09320), up to about a million vectors.

Built with one thread, so the same input gives the same graph. Every process that opens it holds vectors and links: `hnsw_bytes`.
"""

import errno
import os
from pathlib import Path

import hnswlib
import numpy as np

from wherefrom.attribution.retrieval.index import (
    Copies,
    Rows,
    Vectors,
    VectorSource,
    check_count,
)
from wherefrom.errors import BundleCorrupt

_M = 24
_EF_CONSTRUCTION = 200
_SEED = 7


def hnsw_bytes(rows: int, dimensions: int) -> int:
    """Memory of a graph: each vector, its links on the lowest level and a share of those above, its label."""
    return rows * (4 * dimensions + 2 * _M * 4 + 24)


class HnswIndex:
    """Approximate search by a graph over one vector per group of copies."""

    def __init__(self, index: "hnswlib.Index", copies: Copies) -> None:
        self._index = index
        self._copies = copies

    @classmethod
    def build(cls, vectors: VectorSource, originals: Rows | None = None) -> "HnswIndex":
        """Index unit vectors `[N, P]` under their row numbers.

        Args:
            vectors: the unit vectors.
            originals: see `Copies`; None where no row is a copy.
        """
        copies = Copies(np.arange(len(vectors), dtype=np.int64) if originals is None else originals)
        index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        index.init_index(
            max_elements=copies.groups, M=_M, ef_construction=_EF_CONSTRUCTION, random_seed=_SEED
        )
        found = cls(index, copies)
        found._take(vectors, 0)
        return found

    @classmethod
    def load(cls, file: Path, *, dimensions: int, originals: Rows) -> "HnswIndex":
        """Open what `save` wrote.

        Raises:
            BundleCorrupt: the file is no index of the vectors that are no copies.
        """
        copies = Copies(originals)
        index = hnswlib.Index(space="ip", dim=dimensions)
        try:
            index.load_index(str(file), max_elements=copies.groups)
        except RuntimeError as error:
            raise BundleCorrupt(f"{file}: not an HNSW index: {error}") from error
        found = cls(index, copies)
        found.verify(file)
        return found

    def add(self, vectors: VectorSource, originals: Rows) -> None:
        """See `StoredIndex.add`."""
        first, self._copies = len(self), Copies(originals)
        self._index.resize_index(self._copies.groups)
        self._take(vectors, first)

    def _take(self, vectors: VectorSource, first: int) -> None:
        for rows, part in self._copies.chunks_without(vectors, first):
            self._index.add_items(part, rows, num_threads=1)

    def verify(self, file: Path) -> None:
        """See `StoredIndex.verify`."""
        check_count(file, self._index.get_current_count(), self._copies)

    def save(self, file: Path) -> None:
        """Write the graph and the vectors.

        Raises:
            OSError: the file is incomplete; hnswlib itself does not look.
        """
        self._index.save_index(str(file))
        if file.stat().st_size != self._index.index_file_size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))

    def __len__(self) -> int:
        return len(self._copies)

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`; copies stand beside each other."""
        wanted = min(count, self._index.get_current_count())
        self._index.set_ef(max(100, 2 * wanted))
        found, distances = self._index.knn_query(query[None], k=wanted, num_threads=1)
        scores = (1.0 - distances[0]).astype(np.float32)
        return self._copies.spread(found[0].astype(np.int64), scores, count)


class HnswDriver:
    """See `index_drivers.IndexDriver`."""

    def build(self, vectors: VectorSource, originals: Rows) -> HnswIndex:
        """A graph."""
        return HnswIndex.build(vectors, originals)

    def open(self, file: Path, vectors: VectorSource, originals: Rows) -> HnswIndex:
        """Read a graph into memory."""
        return HnswIndex.load(file, dimensions=vectors.shape[1], originals=originals)
