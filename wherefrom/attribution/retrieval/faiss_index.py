r"""The driver for ten to a hundred million vectors on one machine: faiss, an inverted file over RaBitQ codes, mapped into memory.

    random rotation  ->  centroid lists (IVF)  ->  codes of `_BITS` bits per dimension (RaBitQ, arXiv:2405.12497)  ->  exact inner products of the best codes

The rotation spreads a vector evenly over its dimensions, as RaBitQ supposes. Those of projected vectors are uneven: without it, a tenth of the nearest were lost.

The lists are read from disk as they are probed (page cache, shared by all workers); a process holds the centroids only. Codes rank roughly, so `_REFINE` times as many
as are wanted are scored again by the bundle's own vectors, which are mapped as well. Inner products are therefore exact, only the choice is approximate.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from wherefrom.attribution.retrieval.index import (
    Copies,
    Rows,
    Vectors,
    VectorSource,
    best_first,
    check_count,
)
from wherefrom.errors import BundleCorrupt, ConfigurationError

_BITS = 4
_REFINE = 4
#: A query reads the lists nearest to it with about so many codes, or an eighth of all lists where that is more.
_READ = 65_536
#: Vectors per list that the centroids are fitted on; below the least, faiss warns on stderr.
_TRAIN, _LEAST = 64, 1


class FaissIndex:
    """Approximate search in an inverted file, refined by the vectors themselves."""

    def __init__(
        self, index: Any, vectors: VectorSource, copies: Copies, *, mapped: Path | None = None
    ) -> None:
        self._index = index
        self._vectors = vectors
        self._copies = copies
        #: File that the lists are read from, which is never written to.
        self._mapped = mapped

    @classmethod
    def build(cls, vectors: VectorSource, originals: Rows) -> "FaissIndex":
        """Index unit vectors `[N, P]` under their row numbers; read twice, part by part."""
        faiss, copies = _faiss(), Copies(originals)
        lists = _lists(copies.groups)
        width = vectors.shape[1]
        kind = f"RR{width},IVF{lists},RaBitQ{_BITS}"
        index = faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
        fitting = faiss.extract_index_ivf(index).cp
        fitting.min_points_per_centroid, fitting.max_points_per_centroid = _LEAST, _TRAIN
        index.train(_sample(vectors, lists * _TRAIN))
        found = cls(index, vectors, copies)
        found._take(0)
        return found

    @classmethod
    def load(cls, file: Path, vectors: VectorSource, originals: Rows) -> "FaissIndex":
        """Map what `save` wrote.

        Raises:
            BundleCorrupt: the file is no index of these vectors.
            ConfigurationError: faiss is not installed.
        """
        faiss = _faiss()
        try:
            index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            raise BundleCorrupt(f"{file}: not a faiss index: {error}") from error
        if faiss.try_extract_index_ivf(index) is None or index.d != vectors.shape[1]:
            raise BundleCorrupt(f"{file}: not an inverted file of vectors of {vectors.shape[1]} numbers")
        found = cls(index, vectors, Copies(originals), mapped=file)
        found.verify(file)
        return found

    def add(self, vectors: VectorSource, originals: Rows) -> None:
        """See `StoredIndex.add`; the centroids stay."""
        if self._mapped is not None:
            self._index, self._mapped = _faiss().read_index(str(self._mapped)), None
        first = len(self)
        self._vectors, self._copies = vectors, Copies(originals)
        self._take(first)

    def _take(self, first: int) -> None:
        for rows, part in self._copies.chunks_without(self._vectors, first):
            self._index.add_with_ids(np.ascontiguousarray(part), rows)

    def verify(self, file: Path) -> None:
        """See `StoredIndex.verify`."""
        check_count(file, self._index.ntotal, self._copies)

    def save(self, file: Path) -> None:
        """Write the index.

        Raises:
            OSError: it cannot be written; faiss tells the place only.
        """
        try:
            _faiss().write_index(self._index, str(file))
        except RuntimeError as error:
            raise OSError(f"{file}: faiss could not write the index: {error}") from error

    def __len__(self) -> int:
        return len(self._copies)

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`; copies stand beside each other."""
        groups, lists = self._copies.groups, _faiss().extract_index_ivf(self._index).nlist
        wanted = min(count, groups)
        probes = max(math.ceil(lists * min(1, _READ / groups)), lists // 8)
        labels = self._near(query, min(wanted * _REFINE, groups), probes)
        if len(labels) < wanted:  # the lists that were read hold fewer
            labels = self._near(query, wanted, lists)
        return self._copies.spread(*best_first(self._vectors, labels, query, wanted), count)

    def _near(self, query: Vectors, count: int, probes: int) -> Rows:
        """Labels of the best codes in the `probes` nearest lists, ascending: what is read next lies in order on disk."""
        faiss = _faiss()
        how = faiss.SearchParametersIVF(nprobe=probes)
        if isinstance(self._index, faiss.IndexPreTransform):  # bundles of before have no rotation
            how = faiss.SearchParametersPreTransform(index_params=how)
        labels = self._index.search(np.ascontiguousarray(query[None], np.float32), count, params=how)[1][0]
        found: Rows = np.sort(labels[labels >= 0])
        return found


class FaissDriver:
    """See `index_drivers.IndexDriver`."""

    def __init__(self) -> None:
        """Look for the library.

        Raises:
            ConfigurationError: the extra is not installed.
        """
        _faiss()

    def build(self, vectors: VectorSource, originals: Rows) -> FaissIndex:
        """An inverted file."""
        return FaissIndex.build(vectors, originals)

    def open(self, file: Path, vectors: VectorSource, originals: Rows) -> FaissIndex:
        """Map an inverted file."""
        return FaissIndex.load(file, vectors, originals)


def _lists(groups: int) -> int:
    """Centroids: the power of two that is nearest the square root, with about 39 vectors to each."""
    return 1 << max(0, round(math.log2(min(groups**0.5, groups / 39))))


def _sample(vectors: VectorSource, count: int) -> Vectors:
    """At most `count` vectors, evenly spaced."""
    rows = np.linspace(0, len(vectors) - 1, min(count, len(vectors))).round().astype(np.int64)
    return np.ascontiguousarray(vectors[rows])


def _faiss() -> Any:
    """The library.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        import faiss  # noqa: PLC0415 - optional extra
    except ImportError as error:
        raise ConfigurationError(
            'the index driver `faiss` needs faiss-cpu: pip install "wherefrom[faiss]"'
        ) from error
    return faiss
