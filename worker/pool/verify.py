"""Checks that a bundle's folder is what the database and its own manifest say; one that is not is refused, and stops no other."""

from db.bundles import catalogue
from db.queues import waiting
from db.session import Database
from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.attribution.interface import Engine
from wherefrom.errors import BundleMismatch, PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from worker.vitals.liveness import refusal_file

log = get_logger(__name__)


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


def refuse_unusable_bundles(
    database: Database, engine: Engine, settings: Settings
) -> dict[str, PermanentError]:
    """Check every active bundle; one that cannot be used is refused alone, and its pending audits say why they wait.

    The model's own hashes are checked when it is loaded. Whoever refuses looks again later (`worker.pool.runtime`).

    Returns:
        The errors of the refused bundles by name.
    """
    refused: dict[str, PermanentError] = {}
    for bundle in catalogue.active_bundles(database):
        try:
            engine.check(bundle)
        except PermanentError as error:
            refused[bundle.name] = error
            refuse_bundle(database, settings, bundle.id, error)
        except TransientError as error:  # object storage does not answer; whoever opens the bundle asks again
            log.warning("bundle_not_verified", bundle=bundle.name, code=error.code, reason=str(error))
        else:
            log.info("bundle_verified", bundle=bundle.name, model=bundle.model, form=bundle.form)
    return refused


def refuse_bundle(database: Database, settings: Settings, bundle_id: int, error: PermanentError) -> None:
    """Say that a bundle cannot be used: to the log, to the watchdog, and on the audits that wait for it."""
    log.error("bundle_refused", bundle_id=bundle_id, code=error.code, reason=str(error))
    refusal_file(settings, bundle_id).beat(code=error.code)
    waiting.explain_waiting(database, bundle_id, code=error.code, reason=str(error))
