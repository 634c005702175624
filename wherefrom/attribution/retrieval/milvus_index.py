"""The driver for clusters: the vectors are in a Milvus collection, the bundle holds its name. With milvus-lite the same client needs no server.

A collection is named by what is in it, so a build that is repeated finds it, and bundles of the same vectors share it. It is filled under a row's number as primary key, so
filling goes on where it was cut off. Hashes cannot cover it: when a bundle is opened, its size is compared and some of its vectors are looked for (`verify`).
"""

import hashlib
import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    chunks_of,
    evenly,
)
from wherefrom.errors import BundleCorrupt, ConfigurationError, IndexUnavailable
from wherefrom.index_settings import MilvusServer

_ROW, _VECTOR = "row", "vector"
#: Rows of one message to the server, which takes 64 MB; numbers of a vector may be thousands.
_MESSAGE_NUMBERS = 2_000_000
#: The server's graph, as wide as that of the default driver, and the fewest vectors that a search of it looks at.
_GRAPH = {"M": 24, "efConstruction": 200}
_LEAST_EF = 200
#: How many times as many as are wanted are asked for, because the server's own index is approximate; the most that it gives at once.
_REFINE = 2
_MOST = 16_384
#: Vectors that `verify` looks for, and what their inner product may lack.
_LOOKED_FOR, _LACKING = 8, 1e-3


@dataclass(frozen=True)
class _Collection:
    """One collection on a server."""

    client: Any
    name: str

    def count(self) -> int:
        """Vectors that it holds."""
        with _answers():
            found = self.client.query(self.name, filter="", output_fields=["count(*)"])
        return int(found[0]["count(*)"])

    def fill(self, rows: Rows, vectors: Vectors) -> None:
        """Put vectors in under their row numbers."""
        step = max(1, _MESSAGE_NUMBERS // max(1, vectors.shape[1]))
        for first in range(0, len(rows), step):
            part = zip(rows[first : first + step].tolist(), vectors[first : first + step], strict=True)
            with _answers():
                self.client.upsert(self.name, [{_ROW: row, _VECTOR: vector} for row, vector in part])


class MilvusIndex:
    """Search by a Milvus server; inner products are computed again from the bundle's own vectors."""

    def __init__(self, collection: _Collection, vectors: VectorSource, copies: Copies) -> None:
        self._collection = collection
        self._vectors = vectors
        self._copies = copies
        #: Keeps the connection open; it ends with the last one that keeps it.
        self._connection: object = None

    def keep(self, connection: object) -> "MilvusIndex":
        """The same, which keeps a connection open as long as it is used."""
        self._connection = connection
        return self

    @classmethod
    def build(cls, client: Any, vectors: VectorSource, originals: Rows) -> "MilvusIndex":
        """Fill a collection with unit vectors `[N, P]` under their row numbers."""
        copies = Copies(originals)
        collection = _Collection(client, _name_of(vectors, originals))
        with _answers():
            if not client.has_collection(collection.name):
                _create(client, collection.name, vectors.shape[1])
            client.load_collection(collection.name)  # one that an earlier process made is not counted before
        found = cls(collection, vectors, copies)
        if collection.count() != copies.groups:
            found._take(0)
        return found

    @classmethod
    def load(cls, client: Any, file: Path, vectors: VectorSource, originals: Rows) -> "MilvusIndex":
        """Find the collection that `save` wrote down.

        Raises:
            BundleCorrupt: the file is unreadable, or the collection holds other vectors.
            ConfigurationError: the server has no such collection.
        """
        try:
            name = str(json.loads(file.read_text(encoding="utf-8"))["collection"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleCorrupt(f"{file}: does not name a Milvus collection: {error}") from error
        with _answers():
            known = client.has_collection(name)
        if not known:
            raise ConfigurationError(
                f"{file}: the Milvus server has no collection {name}; set WHEREFROM_MILVUS_URI to the server of the build, or rebuild the bundle"
            )
        with _answers():
            client.load_collection(name)
        found = cls(_Collection(client, name), vectors, Copies(originals))
        found.verify(file)
        return found

    def add(self, vectors: VectorSource, originals: Rows) -> None:
        """See `StoredIndex.add`."""
        first = len(self)
        self._vectors, self._copies = vectors, Copies(originals)
        self._take(first)

    def _take(self, first: int) -> None:
        for rows, part in self._copies.chunks_without(self._vectors, first):
            self._collection.fill(rows, part)
        with _answers():
            self._collection.client.flush(self._collection.name)

    def verify(self, file: Path) -> None:
        """See `StoredIndex.verify`; also that stored vectors are found, because no hash covers a collection."""
        check_count(file, self._collection.count(), self._copies)
        rows = evenly(len(self), _LOOKED_FOR)
        asked = self._vectors[rows]
        found = self._near(asked, 1)
        best = np.array([(self._vectors[one] @ query)[0] for one, query in zip(found, asked, strict=True)])
        lost = best < np.square(asked).sum(axis=1) - _LACKING
        if lost.sum() > len(rows) // 2:  # the server's own search is approximate
            raise BundleCorrupt(f"{file}: the Milvus collection {self._collection.name} holds other vectors")

    def save(self, file: Path) -> None:
        """Write down which collection it is."""
        file.write_text(json.dumps({"collection": self._collection.name}) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self._copies)

    def search(self, query: Vectors, count: int) -> tuple[Rows, Vectors]:
        """See `VectorIndex`; copies stand beside each other."""
        wanted = min(count, self._copies.groups)
        labels = self._near(query[None], min(wanted * _REFINE, self._copies.groups, _MOST))[0]
        return self._copies.spread(*best_first(self._vectors, labels, query, wanted), count)

    def _near(self, queries: Vectors, count: int) -> list[Rows]:
        """Labels of the nearest vectors of each query."""
        with _answers():
            found = self._collection.client.search(
                self._collection.name,
                data=list(np.asarray(queries, dtype=np.float32)),
                anns_field=_VECTOR,
                limit=count,
                output_fields=[_ROW],
                search_params={"metric_type": "IP", "params": {"ef": max(_LEAST_EF, 2 * count)}},
            )
        return [np.sort(np.array([hit[_ROW] for hit in hits], dtype=np.int64)) for hits in found]


class MilvusDriver:
    """See `index_drivers.IndexDriver`; one connection for all indexes of a bundle, which ends with the driver or with the last index that was made by it."""

    def __init__(self, server: MilvusServer | None) -> None:
        """Connect.

        Raises:
            ConfigurationError: no server is set, or the extra is not installed.
            IndexUnavailable: it does not answer.
        """
        if server is None:
            raise ConfigurationError(
                "the index driver `milvus` needs a server: set WHEREFROM_MILVUS_URI, to http://HOST:19530 or to a path ending in .db for milvus-lite"
            )
        token = "" if server.token is None else server.token.get_secret_value()
        with _answers(_IN_USE.format(server.uri) if server.uri.endswith(".db") else _SILENT):
            self._client = _pymilvus().MilvusClient(uri=server.uri, token=token)
        self._end = weakref.finalize(self, self._client.close)

    def build(self, vectors: VectorSource, originals: Rows) -> MilvusIndex:
        """A collection."""
        return MilvusIndex.build(self._client, vectors, originals).keep(self)

    def open(self, file: Path, vectors: VectorSource, originals: Rows) -> MilvusIndex:
        """Find a collection."""
        return MilvusIndex.load(self._client, file, vectors, originals).keep(self)

    def drop(self, name: str) -> None:
        """Drop a collection; one that is not there is gone already."""
        with _answers():
            self._client.drop_collection(name)

    def close(self) -> None:
        """End the connection, whoever keeps it."""
        self._end()


def _create(client: Any, name: str, dimensions: int) -> None:
    kinds = _pymilvus().DataType
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(_ROW, kinds.INT64, is_primary=True)
    schema.add_field(_VECTOR, kinds.FLOAT_VECTOR, dim=dimensions)
    index = client.prepare_index_params()
    index.add_index(_VECTOR, index_type="HNSW", metric_type="IP", params=_GRAPH)
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")


def _name_of(vectors: VectorSource, originals: Rows) -> str:
    """Name of the collection of these vectors; Milvus takes letters, digits and underscores."""
    content = hashlib.sha256(np.ascontiguousarray(originals).tobytes())
    for _, part in chunks_of(vectors):
        content.update(np.ascontiguousarray(part).tobytes())
    return f"wherefrom_{content.hexdigest()[:32]}"


_SILENT = "the Milvus server does not answer"
_IN_USE = "milvus-lite cannot open {}; one process alone can have it open: end the other one, or run a Milvus server"


@contextmanager
def _answers(failed: str = _SILENT) -> Iterator[None]:
    """Errors of the client as ours.

    Args:
        failed: what it means if it fails.

    Raises:
        IndexUnavailable: the server does not answer, or it refuses.
    """
    errors = _pymilvus().exceptions
    try:
        yield
    except errors.MilvusException as error:
        raise IndexUnavailable(f"{failed}: {error}") from error


def _pymilvus() -> Any:
    """The library.

    Raises:
        ConfigurationError: the extra is not installed.
    """
    try:
        import pymilvus  # noqa: PLC0415 - optional extra
    except ImportError as error:
        raise ConfigurationError(
            'the index driver `milvus` needs pymilvus: pip install "wherefrom[milvus]"'
        ) from error
    return pymilvus
