"""Which Milvus collections a bundle names, and how they go when it is deleted. Needs no Milvus for bundles without."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from wherefrom.attribution.bundles.stored import BundlePlace
from wherefrom.index_settings import MilvusServer

#: Below a bundle's folder; `retrieval.index_drivers` ends file names with the driver.
_FILES = "index/*.milvus"
_IN_STORE = re.compile(r"index/[^/]+\.milvus")
#: What `retrieval.milvus_index` makes; a bundle that names anything else is not believed.
_NAME = re.compile(r"wherefrom_[0-9a-f]{32}")


def collection_files(bundle: Path) -> list[Path]:
    """The files of a bundle that name collections."""
    return sorted(bundle.glob(_FILES))


def collections_of(bundle: Path) -> frozenset[str]:
    """Names of the collections that a bundle's folder refers to."""
    found = set()
    for file in collection_files(bundle):
        try:
            name = json.loads(file.read_text(encoding="utf-8"))["collection"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(name, str) and _NAME.fullmatch(name):
            found.add(name)
    return frozenset(found)


def is_collection_file(name: str) -> bool:
    """Whether a file of a bundle, by its name in the bundle, refers to a collection."""
    return _IN_STORE.fullmatch(name) is not None


def collections_in_store(place: BundlePlace) -> frozenset[str]:
    """Names of the collections that a bundle in a store refers to.

    Raises:
        StorageUnavailable, StorageRefused: it cannot be asked.
    """
    with TemporaryDirectory(prefix="wherefrom-") as folder:
        for name in place.store.names(place.file("index/")):
            inside = name.removeprefix(place.file(""))
            if is_collection_file(inside):
                place.store.fetch(name, Path(folder) / inside)
        return collections_of(Path(folder))


def drop_collections(names: Iterable[str], server: MilvusServer | None) -> None:
    """Drop collections; those that are not there are gone already.

    Raises:
        ConfigurationError: no server is set, or pymilvus is not installed.
        IndexUnavailable: the server does not answer, or it refuses.
    """
    wanted = sorted(names)
    if not wanted:
        return
    from wherefrom.attribution.retrieval.milvus_index import MilvusDriver  # noqa: PLC0415 - brings torch

    driver = MilvusDriver(server)
    try:
        for name in wanted:
            driver.drop(name)
    finally:
        driver.close()
