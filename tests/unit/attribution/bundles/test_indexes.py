"""The driver of a bundle: chosen by name or by memory, told on card and in the manifest, hash-checked before it is opened, and the same candidates whichever it is."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import build, shared_corpus, shared_micro_bundle, shared_micro_model
from wherefrom.attribution.bundles import indexes
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.indexes import IndexWishes, by_memory
from wherefrom.attribution.bundles.manifest import MANIFEST, read_card, read_manifest
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.retrieval.hnsw_index import hnsw_bytes
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.errors import BundleCorrupt, ConfigurationError
from wherefrom.index_settings import MilvusServer

MODEL_HIDDEN = (1_000_000, 512), (1_000_000, 256)


def opened(bundle: Path, **options: object) -> Bundle:
    """A bundle of the micro model."""
    return open_bundle(bundle, ModelFolders(shared_micro_model()), **options)  # type: ignore[arg-type]  # passed on as they are


def candidates(bundle: Bundle) -> list[list[int]]:
    """What each index finds for a row of the corpus and its negative."""
    return [
        index.search(sign * np.array(vectors[5]), 10)[0].tolist()
        for index, vectors in ((bundle.index, bundle.vectors), (bundle.similarity, bundle.pooled))
        for sign in (1, -1)
    ]


@pytest.mark.parametrize("name", list(DriverName))
def test_driver_of_a_bundle(tmp_path: Path, name: DriverName) -> None:
    """The manifest and the card say who made the indexes and what they lose; the bundle opens by that driver and finds what exact search finds."""
    server = MilvusServer(str(tmp_path / "vectors.db")) if name is DriverName.MILVUS else None
    if name is DriverName.HNSW:
        out = shared_micro_bundle()
    else:
        out, wishes = tmp_path / "bundle", IndexWishes(name, milvus=server)
        build(shared_micro_model(), shared_corpus(40), out, index=wishes)
    manifest = read_manifest(out)
    assert manifest.index is not None
    assert manifest.index.driver == name.value
    assert manifest.index.recall_at_100 == {"projected": 1.0, "similarity": 1.0}
    assert read_card(out)["index"] == manifest.index.model_dump(mode="json")
    assert {file for file in manifest.files if file.startswith("index/")} == {
        "index/originals.npy",
        f"index/projected.{name}",
        f"index/similarity.{name}",
    }
    assert {"hnsw": "hnswlib", "faiss": "faiss-cpu", "milvus": "pymilvus"}[name.value] in manifest.versions
    found = candidates(opened(out, milvus=server))
    assert [set(one) for one in found] == [set(one) for one in candidates(opened(out, exact_search=True))]


def test_changed_index_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a native library is hashed before it is read."""
    build(shared_micro_model(), shared_corpus(40), tmp_path / "bundle", index=IndexWishes(DriverName.FAISS))
    file = tmp_path / "bundle" / "index" / "projected.faiss"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)

    def parsed(*arguments: object) -> None:
        raise AssertionError("the file was parsed")

    monkeypatch.setattr("faiss.read_index", parsed)
    with pytest.raises(BundleCorrupt, match=r"file index/projected\.faiss has changed"):
        opened(tmp_path / "bundle")


def test_bundle_of_an_earlier_release(micro_bundle: Path) -> None:
    """A manifest without a driver is of a release that knew HNSW alone; the bundle has the same name and opens."""
    manifest = read_manifest(micro_bundle)
    old = manifest.model_copy(update={"index": None}).sealed()
    assert b'"index": {' not in old.to_bytes()
    assert old.name == manifest.name
    (micro_bundle / MANIFEST).write_bytes(old.to_bytes())
    assert candidates(opened(micro_bundle)) == candidates(opened(shared_micro_bundle()))


def test_driver_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """HNSW as long as its graphs fit into the share; faiss beyond it, with the reason; HNSW with advice where faiss is absent."""
    needed = sum(hnsw_bytes(*shape) for shape in MODEL_HIDDEN)
    assert needed > 1_000_000 * (768 * 4 + 2 * 192)
    assert by_memory(MODEL_HIDDEN, allowed_bytes=needed) == (DriverName.HNSW, None)
    name, why = by_memory(MODEL_HIDDEN, allowed_bytes=needed - 1)
    assert name is DriverName.FAISS
    assert why is not None
    assert "HNSW graphs would take 3.3 GiB of memory in every worker" in why
    assert "The index driver is faiss instead" in why
    monkeypatch.setattr(indexes, "find_spec", lambda name: None)
    name, why = by_memory(MODEL_HIDDEN, allowed_bytes=needed - 1)
    assert name is DriverName.HNSW
    assert why is not None
    assert 'faiss is not installed: pip install "wherefrom[faiss]"' in why


def test_build_takes_faiss_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody chose, and the graphs would not fit: the build says so and the bundle has the other driver."""
    monkeypatch.setattr(indexes, "machine_bytes", lambda: 50_000)
    manifest = build(shared_micro_model(), shared_corpus(40), tmp_path / "bundle")
    assert manifest.index is not None
    assert manifest.index.driver == "faiss"
    assert opened(tmp_path / "bundle").index.search(np.ones(40, np.float32), 3)[0].shape == (3,)


def test_absent_driver_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the model is read, not hours later."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match=r"wherefrom\[faiss\]"):
        build(
            tmp_path / "no model",
            shared_corpus(40),
            tmp_path / "bundle",
            index=IndexWishes(DriverName.FAISS),
        )
