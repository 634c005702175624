"""The drivers of vector indexes by name, for builds and for opening; the manifest says which one made a bundle's indexes.

hnsw     one graph in memory, up to about a million vectors              `hnsw_index`
faiss    an inverted file, mapped: ten to a hundred million, one machine  `faiss_index`, extra [faiss]
milvus   a collection of a Milvus server or cluster                       `milvus_index`, extra [milvus]
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from wherefrom.attribution.retrieval.faiss_index import FaissDriver
from wherefrom.attribution.retrieval.hnsw_index import HnswDriver
from wherefrom.attribution.retrieval.index import Rows, StoredIndex, VectorSource
from wherefrom.attribution.retrieval.milvus_index import MilvusDriver
from wherefrom.index_settings import MilvusServer


class DriverName(StrEnum):
    """What makes and searches the vector indexes of a bundle; the value ends their file names."""

    #: hnswlib.
    HNSW = "hnsw"
    #: faiss.
    FAISS = "faiss"
    #: Milvus.
    MILVUS = "milvus"


class IndexDriver(Protocol):
    """Makes and opens indexes of one kind. To forget rows, build over the vectors that stay."""

    def build(self, vectors: VectorSource, originals: Rows) -> StoredIndex:
        """Index unit vectors `[N, P]` under their row numbers; `originals`: see `Copies`."""

    def open(self, file: Path, vectors: VectorSource, originals: Rows) -> StoredIndex:
        """Open what the index' own `save` wrote; the file's hash was checked before.

        Raises:
            BundleCorrupt: it is no index of these vectors.
        """


_PACKAGES: Mapping[DriverName, tuple[str, ...]] = MappingProxyType(
    {DriverName.HNSW: ("hnswlib",), DriverName.FAISS: ("faiss-cpu",), DriverName.MILVUS: ("pymilvus",)}
)


def index_packages(name: DriverName) -> tuple[str, ...]:
    """The distributions whose versions decide what a driver makes."""
    return _PACKAGES[name]


def index_driver(name: DriverName, server: MilvusServer | None = None) -> IndexDriver:
    """The driver of a name.

    Raises:
        ConfigurationError: what it needs is not installed or not set.
        IndexUnavailable: its server does not answer.
    """
    match name:
        case DriverName.HNSW:
            return HnswDriver()
        case DriverName.FAISS:
            return FaissDriver()
        case DriverName.MILVUS:
            return MilvusDriver(server)
