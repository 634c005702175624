"""Bundles whose vectors are in Milvus: texts go at once, collections with the last bundle that names them."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.index_settings import MilvusServer
from wherefrom.settings import Settings
from wherefrom.storage import open_store
from worker.erasure import bundle_deletion
from worker.erasure.bundle_deletion import _delete_folder, _delete_stored

MINE, SHARED = f"wherefrom_{'1' * 32}", f"wherefrom_{'2' * 32}"


def write_bundle(folder: Path, *collections: str) -> None:
    """A text, and files that name collections."""
    (folder / "index").mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    (folder / "examples.jsonl").write_text("a text")
    for number, name in enumerate(collections):
        (folder / "index" / f"{number}.milvus").write_text(json.dumps({"collection": name}))


def texts(folder: Path) -> list[str]:
    """Files with the text."""
    return [str(one) for one in folder.rglob("*") if one.is_file() and "a text" in one.read_text()]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is dropped on a server that answers."""
    found: list[str] = []

    def drop(names: Iterable[str], _server: MilvusServer | None) -> None:
        found.extend(names)

    monkeypatch.setattr(bundle_deletion, "drop_collections", drop)
    return found


def test_a_text_does_not_wait_for_milvus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[str]
) -> None:
    """Without a server the text goes and the names stay; the next round drops the collections. One that another bundle names stays."""
    settings = Settings(bundles_dir=tmp_path)
    write_bundle(tmp_path / "b", MINE, SHARED)
    write_bundle(tmp_path / "other", SHARED)
    with monkeypatch.context() as patch:
        patch.setattr(bundle_deletion, "drop_collections", _no_server)
        with pytest.raises(ConfigurationError):
            _delete_folder(settings, "b")
    assert texts(tmp_path) == texts(tmp_path / "other")
    assert _delete_folder(settings, "b")
    assert dropped == [MINE]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other"]
    assert not _delete_folder(settings, "b")
    assert _delete_folder(settings, "other")
    assert dropped == [MINE, SHARED]


def test_the_same_in_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[str]) -> None:
    """A store in a folder; the manifest goes first."""
    store = open_store(str(tmp_path / "store"))
    settings = Settings(bundles_dir=tmp_path / "cache", bundles_url=None)
    write_bundle(tmp_path / "store" / "b", MINE, SHARED)
    write_bundle(tmp_path / "store" / "other", SHARED)
    with monkeypatch.context() as patch:
        patch.setattr(bundle_deletion, "drop_collections", _no_server)
        with pytest.raises(ConfigurationError):
            _delete_stored(settings, store, "b")
    assert store.names("b/") == ["b/index/0.milvus", "b/index/1.milvus"]
    assert _delete_stored(settings, store, "b")
    assert dropped == [MINE]
    assert store.names("b/") == []
    assert texts(tmp_path / "store" / "other")


def _no_server(_names: Iterable[str], _server: MilvusServer | None) -> None:
    raise ConfigurationError("no server")
