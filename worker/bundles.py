"""Puts a bundle into service: checks it, copies it where the workers look, and tells the database about it."""

import shutil
from pathlib import Path

from db.bundles import catalogue, erased_bundles
from db.session import Database
from wherefrom.atomic import atomic_folder, write_bytes
from wherefrom.attribution.bundles.cache import BundleCache, HeldBundle
from wherefrom.attribution.bundles.card_file import finish_replacing, replace_card
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    read_card,
    read_manifest,
)
from wherefrom.attribution.bundles.model_location import copy_note
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.attribution.bundles.stored import BundlePlace, push_bundle
from wherefrom.errors import DiskFull, UnknownBundle
from wherefrom.settings import Settings
from wherefrom.storage import is_url
from worker.bundle_homes import bundle_store


def add_bundle(
    database: Database, settings: Settings, source: str | Path, *, activate: bool
) -> tuple[int, Manifest]:
    """Register a bundle; its id and its manifest. Adding it again changes nothing but whether it is active, and its card if it was measured since.

    Args:
        database: of the service.
        settings: of the service.
        source: the bundle's folder, or its URL in object storage.
        activate: whether it explains its model from now on.

    Raises:
        UnknownBundle: there is no such folder, or nothing at the URL.
        BundleUnsigned: the settings ask for a signature, and it has none that is right.
        BundleCorrupt: a file is not what the manifest states.
        BundleMismatch: the model is known with other weights, or the name for another bundle; or it holds an erased training example.
        DiskFull: the bundle cannot be copied to `bundles_dir`.
        StorageUnavailable, StorageRefused: object storage does not answer, or says no.
        DatabaseUnavailable: nothing was registered.
    """
    with _at_hand(settings, source) as path:
        if not path.is_dir():
            raise UnknownBundle(f"folder not found: {path}")
        check_signature(path, settings.bundle_keys)
        manifest = read_manifest(path)
        erased_bundles.refuse_erased(database, manifest.name, corpus_sha256=manifest.corpus.sha256)
        home = put_bundle(settings, path, manifest.name)
        return _register(database, manifest, home, activate=activate), manifest


def _at_hand(settings: Settings, source: str | Path) -> HeldBundle:
    """The folder of a bundle that may be in object storage; it is fetched to where this machine keeps bundles."""
    if not is_url(str(source)):
        return HeldBundle(Path(source))
    place = BundlePlace.of_url(str(source))
    limit = None if settings.bundles_url is None else settings.bundle_cache_bytes
    cache = BundleCache(settings.bundles_dir, place.store, limit_bytes=limit, keys=settings.bundle_keys)
    if cache.has(place.name):
        cache.refresh(place.name)
    return cache.hold(place.name, hashes=HashMemory.of_machine(settings))


def put_bundle(settings: Settings, path: Path, name: str) -> Path:
    """Put an intact bundle where the workers look; the folder of it that is on this machine.

    Raises:
        BundleCorrupt: the one that is there is not intact.
        DiskFull, StorageUnavailable, StorageRefused: the one that is there is as it was.
    """
    store = bundle_store(settings)
    if store is not None:
        push_bundle(path, store)
        settings.bundles_dir.mkdir(parents=True, exist_ok=True)
        copy_note(path, settings.bundles_dir / name)
        return path
    home = settings.bundles_dir / name
    if home.resolve() != path.resolve():
        copy_bundle(path, home)
    return home


def _register(database: Database, manifest: Manifest, home: Path, *, activate: bool) -> int:
    return catalogue.register_bundle(
        database,
        name=manifest.name,
        model=manifest.model.name,
        weights_sha256=manifest.model.weights_sha256,
        adapter_sha256=manifest.model.adapter_sha256,
        tokenizer_sha256=manifest.model.tokenizer_sha256,
        corpus_sha256=manifest.corpus.sha256,
        corpus_name=manifest.corpus.name,
        corpus_examples=manifest.corpus.examples,
        form=manifest.parameters.form,
        card=read_card(home),
        examples=iter_examples(home),
        activate=activate,
    )


def copy_bundle(path: Path, home: Path) -> None:
    """Copy a bundle into place in one step, with the note that says where its model lies. One that is there and whole stays as it is, but for a card that was measured since.

    Raises:
        BundleCorrupt: the one that is there is not intact.
        DiskFull: there is nothing at `home`.
    """
    _copy(path, home)
    copy_note(path, home)


def _copy(path: Path, home: Path) -> None:
    if home.is_dir():
        finish_replacing(home)
        read_manifest(home)
        _refresh_card(path, home)
        return
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with atomic_folder(home) as unfinished:
            shutil.copytree(path, unfinished, dirs_exist_ok=True)
    except OSError as error:
        raise DiskFull(f"the bundle cannot be copied to {home}: {error.strerror or error}") from error


def _refresh_card(path: Path, home: Path) -> None:
    """Take over another card, and the signature of what is then the same manifest; a card without measured quality never replaces one that has it."""
    given, present = read_card(path), read_card(home)
    if given != present and (given.get("quality") or not present.get("quality")):
        replace_card(home, given)
    if (path / SIGNATURE).is_file() and (path / MANIFEST).read_bytes() == (home / MANIFEST).read_bytes():
        write_bytes(home / SIGNATURE, (path / SIGNATURE).read_bytes())
