"""Computes a citation again from the bundle that it names, and holds it against what is stored. Nothing is queued, nothing is written, and no text is shown."""

from db.bundles import catalogue, erased_bundles
from db.queues.claimed import read_claimed
from db.reading import reader
from db.session import Database
from tasks.preparing import prepare_audit
from wherefrom.attribution.interface import Engine
from wherefrom.attribution.reproducing import ask_again, check_engine, citation_of, compare, erased
from wherefrom.attribution.setup import OWN_ENGINE, settings_of_then, setup_of
from wherefrom.errors import OUTPUT_ERASED, ConfigurationError
from wherefrom.records import CitationRecord, ClaimedAudit
from wherefrom.records.lineage import CitationAddress, Reproduction
from wherefrom.settings import Settings

#: Who holds the audit while it is read; nothing is claimed.
_READER = "reproduce"


def reproduce(
    database: Database, engine: Engine, settings: Settings, address: CitationAddress
) -> Reproduction:
    """Compute a citation again.

    The settings that decide scores are those of then, where the audit says them.

    Raises:
        NotFound: there is no such audit or citation, or the audit has no answer.
        ConfigurationError: another engine answered the audit than the one of this process.
        UnknownBundle, BundleCorrupt, BundleMismatch, BundleUnsigned, UnusableModel: the bundle or its model is not what the audit names.
    """
    detail = reader.get_audit(database, address.audit_id)
    stored = citation_of(detail, address)
    bundle = catalogue.find_bundle(database, str(detail.audit.bundle))
    check_engine(detail.computed_with, settings.engine or OWN_ENGINE)
    claimed = _claimed(database, address.audit_id)
    gone = _gone(database, stored, bundle.name)
    if gone is not None:
        return erased(address, stored, bundle.name, then=detail.computed_with, gone=gone)
    if claimed is None:
        return erased(address, stored, bundle.name, then=detail.computed_with)
    with_then = settings_of_then(settings, detail.computed_with)
    attributor = engine.open_attributor(bundle)
    prepared = prepare_audit(claimed, attributor=attributor, settings=with_then)
    answer = ask_again(attributor, prepared, detail)
    return compare(
        address,
        stored,
        answer,
        bundle=bundle.name,
        then=detail.computed_with,
        now=setup_of(attributor, with_then),
    )


def _gone(database: Database, stored: CitationRecord, bundle: str) -> str | None:
    """What was erased on the side of the training data; None where nothing was."""
    if stored.erased_at is not None:
        return "The text of the training example"
    if erased_bundles.is_erased(database, bundle):
        return "The bundle, because of another training example in it,"
    return None


def _claimed(database: Database, audit_id: int) -> ClaimedAudit | None:
    """The audit as a worker would have it; None where a text of it was erased.

    Raises:
        ConfigurationError: its rows cannot be read.
    """
    with database.reading() as session:
        read = read_claimed(session, [audit_id], _READER)
    if read.audits:
        return read.audits[0]
    if read.unreadable and read.unreadable[0].code != OUTPUT_ERASED:
        raise ConfigurationError(f"audit {audit_id}: {read.unreadable[0].reason}")
    return None
