"""Checks that a bundle's folder is what the database and its own manifest say; a mismatch stops a worker at its start."""

from pathlib import Path

from db import catalogue
from db.session import Database
from wherefrom.attribution.bundles.manifest import Manifest, read_manifest
from wherefrom.attribution.interface import Engine
from wherefrom.errors import BundleMismatch
from wherefrom.logs import get_logger
from wherefrom.records import BundleInfo

log = get_logger(__name__)


def check_bundle(bundle: BundleInfo, folder: Path) -> None:
    """Check that a folder holds the bundle that is registered, every byte of it.

    Raises:
        UnknownBundle: there is no such folder.
        BundleCorrupt: a file is not what the manifest states.
        BundleMismatch: the folder holds another bundle than the database knows under this name.
    """
    check_registered(bundle, read_manifest(folder))


def check_registered(bundle: BundleInfo, manifest: Manifest) -> None:
    """Check that a manifest is the one of the registered bundle.

    Raises:
        BundleMismatch: it says another name, model, corpus or form.
    """
    facts = {
        "name": (bundle.name, manifest.name),
        "model": (bundle.model, manifest.model.name),
        "corpus": (bundle.corpus_sha256, manifest.corpus.sha256),
        "form": (bundle.form, manifest.parameters.form),
    }
    for fact, (registered, found) in facts.items():
        if registered != found:
            raise BundleMismatch(
                f"bundle {bundle.name}: the database says {fact} {registered}, the folder says {found}"
            )


def verify_active_bundles(database: Database, engine: Engine) -> int:
    """Check every active bundle; how many there are.

    Raises:
        UnknownBundle, BundleCorrupt, BundleMismatch: see `Engine.check`. The model's own hashes are checked when it is loaded.
    """
    bundles = catalogue.active_bundles(database)
    for bundle in bundles:
        engine.check(bundle)
        log.info("bundle_verified", bundle=bundle.name, model=bundle.model, form=bundle.form)
    return len(bundles)
