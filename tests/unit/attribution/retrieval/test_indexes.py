"""One suite for the drivers of vector indexes: hnsw, faiss and milvus (milvus-lite) find what exact search finds, and say what they lack."""

import gc
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.absence import absent
from wherefrom.attribution.bundles.indexes import IndexWishes
from wherefrom.attribution.bundles.milvus_collections import collections_of, drop_collections
from wherefrom.attribution.retrieval.faiss_index import FaissDriver, FaissIndex
from wherefrom.attribution.retrieval.index import (
    Copies,
    ExactIndex,
    Rows,
    UnitVectors,
    Vectors,
    originals_of,
    unit_rows,
)
from wherefrom.attribution.retrieval.index_drivers import DriverName, IndexDriver, index_driver
from wherefrom.attribution.retrieval.index_recall import recall_of
from wherefrom.attribution.retrieval.milvus_index import MilvusDriver
from wherefrom.errors import BundleCorrupt, ConfigurationError, IndexUnavailable
from wherefrom.index_settings import MilvusServer

ROWS, WIDTH = 1500, 32
#: Share of the exact 100 nearest that each driver finds.
RECALL = 0.97


def clustered(count: int, *, seed: int) -> Vectors:
    """Unit vectors around a few centres."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(20, WIDTH))
    vectors = centres[generator.integers(0, 20, count)] + 0.7 * generator.normal(size=(count, WIDTH))
    return unit_rows(vectors.astype(np.float32))


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusDriver]:
    """Milvus-lite in a folder: one for the module, because it takes seconds to start."""
    if find_spec("milvus_lite") is None:
        absent("milvus-lite is not installed")
    driver = MilvusDriver(MilvusServer(str(tmp_path_factory.mktemp("milvus") / "vectors.db")))
    yield driver
    driver.close()


@pytest.fixture(scope="module", params=list(DriverName))
def driver(request: pytest.FixtureRequest) -> IndexDriver:
    """Each driver."""
    if request.param is DriverName.MILVUS:
        found: IndexDriver = request.getfixturevalue("milvus")
        return found
    return index_driver(request.param)


def no_copies(vectors: np.ndarray) -> Rows:
    """Originals of a corpus in which no row is a copy."""
    return np.arange(len(vectors), dtype=np.int64)


def test_recall_and_file(driver: IndexDriver, tmp_path: Path) -> None:
    """Nearly all of the exact nearest are found, for the query and its negative, and what was saved answers as what was built."""
    vectors, queries = clustered(ROWS, seed=1), clustered(20, seed=2)
    built, exact = driver.build(vectors, no_copies(vectors)), ExactIndex(vectors)
    built.save(tmp_path / "index")
    opened = driver.open(tmp_path / "index", vectors, no_copies(vectors))
    assert len(built) == len(opened) == ROWS
    assert recall_of(built, vectors) >= RECALL
    for sign in (1, -1):
        found = [built.search(sign * query, 100)[0] for query in queries]
        truth = [exact.search(sign * query, 100)[0] for query in queries]
        assert np.mean([np.isin(*pair).mean() for pair in zip(truth, found, strict=True)]) >= RECALL, sign
    for query in queries[:3]:
        for one, other in zip(built.search(query, 50), opened.search(query, 50), strict=True):
            np.testing.assert_array_equal(one, other)


def test_scores_and_order(driver: IndexDriver) -> None:
    """Inner products come best first; a query's length changes no order; a small index gives all it has."""
    vectors = clustered(50, seed=3)
    index = driver.build(vectors, no_copies(vectors))
    rows, products = index.search(3 * vectors[7], 500)
    assert rows[0] == 7
    assert sorted(rows.tolist()) == list(range(50))
    assert list(rows) == list(index.search(vectors[7], 500)[0])
    np.testing.assert_allclose(products, vectors[rows] @ (3 * vectors[7]), rtol=1e-4, atol=1e-5)
    assert all(products[:-1] >= products[1:])


def test_copies(driver: IndexDriver, tmp_path: Path) -> None:
    """400 copies of one row do not hide 100 others; copies come together, in the order of their rows, and never more than asked for."""
    vectors = np.concatenate([np.tile(clustered(1, seed=7), (400, 1)), clustered(100, seed=6)])
    originals = originals_of([*["copy"] * 400, *range(100)])
    driver.build(vectors, originals).save(tmp_path / "index")
    index = driver.open(tmp_path / "index", vectors, originals)
    assert len(index) == 500
    for row in range(400, 500, 9):
        assert index.search(vectors[row], 5)[0][0] == row
    assert index.search(vectors[0], 64)[0].tolist() == list(range(64))
    assert sorted(index.search(vectors[450], 500)[0].tolist()) == list(range(500))


def test_add(driver: IndexDriver, tmp_path: Path) -> None:
    """Rows that are added to an opened index are found, copies of earlier rows with them."""
    vectors = clustered(300, seed=8)
    vectors[299] = vectors[4]
    originals = no_copies(vectors)
    originals[299] = 4
    driver.build(vectors[:200], originals[:200]).save(tmp_path / "index")
    index = driver.open(tmp_path / "index", vectors[:200], originals[:200])
    index.add(vectors, originals)
    assert len(index) == 300
    assert [int(index.search(vectors[row], 1)[0][0]) for row in range(200, 299)] == list(range(200, 299))
    assert set(index.search(vectors[4], 2)[0].tolist()) == {4, 299}
    index.verify(tmp_path / "index")


def test_without_rows(driver: IndexDriver) -> None:
    """To forget, an index is built over what stays: it finds none of the rows that are gone."""
    vectors = clustered(200, seed=9)
    kept = np.delete(np.arange(200), [3, 77])
    index = driver.build(vectors[kept], no_copies(kept))
    assert len(index) == 198
    assert sorted(index.search(vectors[77], 500)[0].tolist()) == list(range(198))


def test_another_corpus(driver: IndexDriver, tmp_path: Path) -> None:
    """An index of another number of vectors is corrupt, and so is a file that is none; both are named."""
    vectors = clustered(60, seed=10)
    driver.build(vectors, no_copies(vectors)).save(tmp_path / "index")
    with pytest.raises(BundleCorrupt, match="index: has 60 vectors, but the manifest says 59"):
        driver.open(tmp_path / "index", vectors[:59], no_copies(vectors[:59]))
    (tmp_path / "index").write_bytes(b"nothing of the kind")
    with pytest.raises(BundleCorrupt, match="index: "):
        driver.open(tmp_path / "index", vectors, no_copies(vectors))


def test_faiss_reads_its_lists_from_disk(tmp_path: Path) -> None:
    """An opened file is mapped, not read: a worker holds the centroids alone. The same vectors give the same file."""
    faiss = pytest.importorskip("faiss")
    vectors = clustered(ROWS, seed=1)
    for name in ("one", "two"):
        FaissIndex.build(vectors, no_copies(vectors)).save(tmp_path / name)
    opened = FaissDriver().open(tmp_path / "one", vectors, no_copies(vectors))
    lists = faiss.downcast_InvertedLists(faiss.extract_index_ivf(opened._index).invlists)
    assert isinstance(lists, faiss.OnDiskInvertedLists)
    assert lists.read_only
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(BundleCorrupt, match="not an inverted file of vectors of 8 numbers"):
        FaissDriver().open(tmp_path / "one", vectors[:, :8], no_copies(vectors))
    with pytest.raises(OSError, match="faiss could not write the index"):
        opened.save(tmp_path / "missing" / "index")


def test_faiss_finds_vectors_with_uneven_dimensions() -> None:
    """As projected vectors are, in small corpora too: the goal of .98 is kept. Without a rotation it is .87."""
    pytest.importorskip("faiss")
    spread = np.arange(1, 513, dtype=np.float32) ** -0.3
    drawn = np.random.default_rng(5).normal(size=(ROWS, len(spread)))
    vectors = unit_rows((drawn * spread).astype(np.float32))
    assert recall_of(FaissIndex.build(vectors, no_copies(vectors)), vectors) >= 0.98


def test_faiss_opens_what_was_written_without_a_rotation(tmp_path: Path) -> None:
    """Bundles of before: their file opens, is searched and takes rows."""
    faiss = pytest.importorskip("faiss")
    vectors = clustered(300, seed=18)
    old = faiss.index_factory(WIDTH, "IVF8,RaBitQ4", faiss.METRIC_INNER_PRODUCT)
    old.train(vectors)
    old.add(vectors[:290])
    faiss.write_index(old, str(tmp_path / "index"))
    index = FaissDriver().open(tmp_path / "index", vectors[:290], no_copies(vectors[:290]))
    assert recall_of(index, vectors[:290]) >= RECALL
    index.add(vectors, no_copies(vectors))
    assert [int(index.search(vectors[row], 1)[0][0]) for row in range(280, 300)] == list(range(280, 300))


def test_milvus_with_other_vectors(milvus: MilvusDriver, tmp_path: Path) -> None:
    """No hash covers a collection, so one that holds other vectors is found out by looking for some; one that is gone is a wrong server."""
    vectors, others = clustered(40, seed=11), clustered(40, seed=12)
    milvus.build(vectors, no_copies(vectors)).save(tmp_path / "index")
    with pytest.raises(BundleCorrupt, match="holds other vectors"):
        milvus.open(tmp_path / "index", others, no_copies(others))
    (tmp_path / "index").write_text('{"collection": "wherefrom_0"}')
    with pytest.raises(
        ConfigurationError, match="the Milvus server has no collection wherefrom_0; set WHEREFROM_MILVUS_URI"
    ):
        milvus.open(tmp_path / "index", vectors, no_copies(vectors))


def test_milvus_connections_end(
    milvus: MilvusDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A connection lives as long as its driver or one of the driver's indexes, and no longer; one that is opened for a look ends after it."""
    vectors = clustered(40, seed=15)
    milvus.build(vectors, no_copies(vectors)).save(tmp_path / "index")
    ended: list[str] = []
    client = type(milvus._client)
    close = client.close

    def counted(one: Any) -> None:
        ended.append("ended")
        close(one)

    monkeypatch.setattr(client, "close", counted)
    server = MilvusServer(milvus._client._config.uri)
    driver = MilvusDriver(server)
    index = driver.open(tmp_path / "index", vectors, no_copies(vectors))
    del driver
    gc.collect()
    assert ended == []
    assert int(index.search(vectors[30], 1)[0][0]) == 30
    del index
    gc.collect()
    assert ended == ["ended"]
    IndexWishes(DriverName.MILVUS, milvus=server).check()
    gc.collect()
    assert ended == ["ended", "ended"]
    assert int(milvus.open(tmp_path / "index", vectors, no_copies(vectors)).search(vectors[7], 1)[0][0]) == 7


def test_milvus_collections_go_with_the_last_bundle(milvus: MilvusDriver, tmp_path: Path) -> None:
    """What two bundles share stays until both are gone; a name that is not ours is not believed."""
    vectors, others = clustered(40, seed=16), clustered(40, seed=17)
    for bundle, held in (("one", (vectors, others)), ("two", (vectors,))):
        (tmp_path / bundle / "index").mkdir(parents=True)
        for number, one in enumerate(held):
            milvus.build(one, no_copies(one)).save(tmp_path / bundle / "index" / f"{number}.milvus")
    (tmp_path / "one" / "index" / "x.milvus").write_text('{"collection": "somebody_elses"}')
    first, second = (collections_of(tmp_path / one) for one in ("one", "two"))
    assert (len(first), len(second)) == (2, 1)
    server = MilvusServer(milvus._client._config.uri)
    drop_collections(first - second, server)
    drop_collections(first - second, server)
    assert [milvus._client.has_collection(one) for one in sorted(first)] == [
        one in second for one in sorted(first)
    ]
    drop_collections(second, server)
    assert not milvus._client.has_collection(next(iter(second)))


def test_milvus_goes_on(milvus: MilvusDriver, tmp_path: Path) -> None:
    """A collection that was cut off while it was filled is completed by the next build, which has the same name."""
    vectors = clustered(50, seed=13)
    whole = milvus.build(vectors, no_copies(vectors))
    whole.save(tmp_path / "one")
    whole._collection.client.delete(whole._collection.name, ids=list(range(20, 50)))
    again = milvus.build(vectors, no_copies(vectors))
    again.save(tmp_path / "two")
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert int(again.search(vectors[30], 1)[0][0]) == 30


def test_milvus_loads_what_another_process_made(
    milvus: MilvusDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collection that nobody holds loaded is loaded before it is counted: a server, unlike milvus-lite, counts no other."""
    vectors = clustered(40, seed=14)
    collection = milvus.build(vectors, no_copies(vectors))._collection
    client, count, load = collection.client, collection.client.query, collection.client.load_collection
    # Noted, not released in earnest: milvus-lite may still write the index that it would read again.
    loaded: list[str] = []

    def load_collection(name: str) -> None:
        load(name)
        loaded.append(name)

    def query(*given: Any, **more: Any) -> Any:
        assert collection.name in loaded, "collection not loaded"
        return count(*given, **more)

    monkeypatch.setattr(client, "load_collection", load_collection)
    monkeypatch.setattr(client, "query", query)
    again = milvus.build(vectors, no_copies(vectors))
    assert int(again.search(vectors[7], 1)[0][0]) == 7


def test_milvus_away() -> None:
    """A server that does not answer is a reason to try again, not a corrupt bundle; no server at all is a setting to make."""
    with pytest.raises(IndexUnavailable, match="the Milvus server does not answer"):
        index_driver(DriverName.MILVUS, MilvusServer("http://127.0.0.1:9"))
    with pytest.raises(ConfigurationError, match="set WHEREFROM_MILVUS_URI"):
        index_driver(DriverName.MILVUS)


def test_milvus_lite_is_in_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another process has the file open: the error says that this is so, and what to do."""
    pytest.importorskip("milvus_lite")
    started = "milvus_lite.server_manager.server_manager_instance.start_and_get_uri"
    monkeypatch.setattr(started, lambda *_: None)
    with pytest.raises(IndexUnavailable, match=r"cannot open .*vectors\.db; one process alone"):
        MilvusDriver(MilvusServer(str(tmp_path / "vectors.db")))


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("faiss", "faiss", "faiss"), ("milvus", "pymilvus", "milvus")]
)
def test_extra_is_absent(monkeypatch: pytest.MonkeyPatch, *, name: str, module: str, extra: str) -> None:
    """The error names the extra that is to be installed."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=rf'pip install "wherefrom\[{extra}\]"'):
        index_driver(DriverName(name), MilvusServer("http://127.0.0.1:9"))


def test_copies_hold_the_copies_alone() -> None:
    """Groups spread into their rows; a corpus without copies holds no array."""
    copies = Copies(np.array([0, 1, 0, 3, 1, 0]))
    assert (len(copies), copies.groups) == (6, 3)
    rows, scores = copies.spread(np.array([1, 0, 3]), np.array([0.9, 0.8, 0.7], np.float32), 5)
    assert rows.tolist() == [1, 4, 0, 2, 5]
    np.testing.assert_allclose(scores, [0.9, 0.9, 0.8, 0.8, 0.8])
    assert copies.without(np.arange(6)).tolist() == [True, True, False, True, False, False]
    assert [copies.members(label).tolist() for label in (0, 1, 3)] == [[0, 2, 5], [1, 4], [3]]
    assert Copies(np.arange(5))._copies.size == 0


def test_recall_counts_equally_near_rows() -> None:
    """Which of several copies is returned does not matter; what is lacking does."""
    vectors = np.concatenate([np.tile(clustered(1, seed=1), (150, 1)), clustered(150, seed=2)])
    assert recall_of(ExactIndex(vectors), vectors) == 1.0
    assert recall_of(ExactIndex(vectors[:150]), vectors) < 0.9


def test_unit_vectors() -> None:
    """Only what is read is brought to unit length; a row of zeros stays."""
    stored = np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]], dtype=np.float32)
    unit = UnitVectors(stored)
    assert (len(unit), unit.shape) == (3, (3, 2))
    np.testing.assert_allclose(unit[1:3], [[0.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(unit[np.array([0])], [[0.6, 0.8]])
