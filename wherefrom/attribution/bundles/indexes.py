"""The vector indexes of a bundle: which there are, who makes them, how they are written and opened. A builder that leaves rows out writes its vectors and calls `write_indexes`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from wherefrom.attribution.array_files import mapped
from wherefrom.attribution.bundles.manifest import IndexEntry, Manifest
from wherefrom.attribution.memory import machine_bytes
from wherefrom.attribution.retrieval.encoder import ENCODED
from wherefrom.attribution.retrieval.hnsw_index import hnsw_bytes
from wherefrom.attribution.retrieval.index import (
    ORIGINALS,
    ExactIndex,
    Rows,
    UnitVectors,
    VectorIndex,
    VectorSource,
)
from wherefrom.attribution.retrieval.index_drivers import DriverName, IndexDriver, index_driver
from wherefrom.attribution.retrieval.index_recall import recall_of
from wherefrom.index_settings import MilvusServer

INDEX = "index"
#: Vectors of the corpus below `features`, and what is searched by them.
PROJECTED_VECTORS, POOLED_VECTORS = "vectors.npy", "pooled.npy"
PROJECTED, SIMILARITY, ENCODED_TEXTS = "projected", "similarity", "encoded"
_VECTORS = {PROJECTED: PROJECTED_VECTORS, SIMILARITY: POOLED_VECTORS, ENCODED_TEXTS: ENCODED}
_GIB = 1 << 30


@dataclass(frozen=True)
class IndexWishes:
    """What a user may choose about the indexes of a new bundle."""

    #: None: by the memory that HNSW graphs would take.
    driver: DriverName | None = None
    memory_share: float = 0.25
    milvus: MilvusServer | None = None

    def check(self) -> None:
        """Refuse, before anything is computed, a driver that cannot work here.

        Raises:
            ConfigurationError: what it needs is not installed or not set.
            IndexUnavailable: its server does not answer.
        """
        if self.driver is not None:
            index_driver(self.driver, self.milvus)


def vectors_of(bundle: Path, name: str) -> VectorSource:
    """What an index of a bundle holds, mapped: unit vectors `[N, P]`."""
    stored = mapped(bundle / "features" / _VECTORS[name])
    return UnitVectors(stored) if name == PROJECTED else stored


def chosen_driver(bundle: Path, wishes: IndexWishes) -> tuple[DriverName, str | None]:
    """The driver of a bundle whose vectors are written, and what the person who builds should know about the choice."""
    if wishes.driver is not None:
        return wishes.driver, None
    shapes = [vectors_of(bundle, name).shape for name in _present(bundle)]
    return by_memory(shapes, allowed_bytes=round(machine_bytes() * wishes.memory_share))


def by_memory(shapes: Sequence[tuple[int, ...]], *, allowed_bytes: int) -> tuple[DriverName, str | None]:
    """The driver for vectors of these shapes where nobody chose: HNSW as long as its graphs fit into a share of the memory."""
    needed = sum(hnsw_bytes(*shape) for shape in shapes)
    if needed <= allowed_bytes:
        return DriverName.HNSW, None
    why = (
        f"HNSW graphs would take {needed / _GIB:.1f} GiB of memory in every worker, and the setting index_memory_share "
        f"allows {allowed_bytes / _GIB:.1f} GiB"
    )
    if find_spec("faiss") is None:
        return (
            DriverName.HNSW,
            f'NOTE: {why}. The index driver is hnsw all the same, because faiss is not installed: pip install "wherefrom[faiss]"',
        )
    return (
        DriverName.FAISS,
        f"NOTE: {why}. The index driver is faiss instead; `--index hnsw` takes HNSW all the same",
    )


def write_indexes(
    bundle: Path, originals: Rows, name: DriverName, *, milvus: MilvusServer | None = None
) -> IndexEntry:
    """Build and save an index over each of the vectors that a bundle holds.

    Args:
        bundle: folder that is being built; its vectors are written.
        originals: for each row the first one that it is a copy of; see `Copies`.
        name: which driver.
        milvus: where Milvus is.

    Returns:
        The driver and what its indexes lose, for the manifest.

    Raises:
        ConfigurationError: what the driver needs is not installed or not set.
        IndexUnavailable: its server does not answer.
    """
    driver = index_driver(name, milvus)
    (bundle / INDEX).mkdir(exist_ok=True)
    np.save(bundle / INDEX / ORIGINALS, originals)
    recall = {}
    for one in _present(bundle):
        vectors = vectors_of(bundle, one)
        index = driver.build(vectors, originals)
        index.save(index_file(bundle, one, name))
        recall[one] = round(recall_of(index, vectors), 4)
    return IndexEntry(driver=name.value, recall_at_100=recall)


class IndexOpener:
    """Opens the indexes of one bundle, whose files were hashed before."""

    def __init__(self, bundle: Path, manifest: Manifest, *, milvus: MilvusServer | None, exact: bool) -> None:
        """Take the driver that the manifest names.

        Args:
            bundle: its folder.
            manifest: its manifest; one without a driver is of a release that knew HNSW alone.
            milvus: where Milvus is.
            exact: search exhaustively instead.
        """
        self._bundle = bundle
        self._name = driver_of(manifest)
        self._driver: IndexDriver | None = None if exact else index_driver(self._name, milvus)

    def open(self, name: str) -> VectorIndex:
        """One index.

        Raises:
            BundleCorrupt: it is no index of the bundle's vectors.
        """
        vectors = vectors_of(self._bundle, name)
        if self._driver is None:
            return ExactIndex(vectors[:])
        return self._driver.open(
            index_file(self._bundle, name, self._name), vectors, _originals(self._bundle)
        )


def driver_of(manifest: Manifest) -> DriverName:
    """What made the indexes of a bundle: hnswlib where an earlier release did not say."""
    return DriverName.HNSW if manifest.index is None else DriverName(manifest.index.driver)


def index_file(bundle: Path, name: str, driver: DriverName) -> Path:
    """File of one index."""
    return bundle / INDEX / f"{name}.{driver}"


def _present(bundle: Path) -> Iterator[str]:
    return (name for name, file in _VECTORS.items() if (bundle / "features" / file).is_file())


def _originals(bundle: Path) -> Rows:
    return mapped(bundle / INDEX / ORIGINALS)
