"""Erases training examples from a service: new bundles without them, tombstones in the database, old bundles deleted when nothing uses them.

Each step can be repeated. New bundles are written and put into service first; then one transaction erases in the database and lets the old bundles go. A run that was killed
before that is run again: it finds the old bundles still there.
"""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.bundles import catalogue, erased_bundles, routing
from db.erasure import cleaning, erasures, example_erasing, holds
from db.session import Database
from wherefrom.atomic import move_folder
from wherefrom.attribution.bundles.examples import EXAMPLES, iter_examples
from wherefrom.attribution.bundles.model_location import copy_note
from wherefrom.attribution.bundles.signing import check_signature
from wherefrom.errors import ConfigurationError, NotFound
from wherefrom.records import BundleInfo, TrainingExample
from wherefrom.settings import Settings
from worker.bundle_homes import bundle_names, hold_bundle
from worker.bundles import add_bundle
from worker.erasure.bundle_deletion import delete_unused


@dataclass(frozen=True)
class Request:
    """What is to be forgotten."""

    example_ids: tuple[str, ...]
    reason: str
    #: Name or id of a bundle whose examples are meant, where ids stand for several texts.
    bundle: str | None = None
    #: Other examples with the same text go too.
    copies: bool = False
    #: Signs the new bundles.
    key: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    example_ids: tuple[str, ...]
    #: New bundles in service, by the name of the one that each replaces.
    replaced: Mapping[str, str]
    #: Bundles that went, and those whose folders are still there: a lease uses them, or they could not be deleted here.
    deleted: tuple[str, ...]
    waiting: tuple[str, ...]
    #: Bundles that were not looked into, because their folders are not on this machine, nor in object storage.
    unseen: tuple[str, ...]
    #: Whether files of the database were cleaned too.
    cleaned: bool


@dataclass(frozen=True)
class _Holder:
    """A registered bundle that has some of the examples."""

    bundle: BundleInfo
    examples: tuple[TrainingExample, ...]


def forget(database: Database, settings: Settings, asked: Request, *, by: str) -> Outcome:
    """Forget training examples.

    Args:
        database: Of the service.
        settings: Of the service.
        asked: Which, and why.
        by: Actor of the trail.

    Raises:
        NotFound: no bundle has an example of an id, and none is stored.
        Held: a held output cites one of them; nothing was changed.
        ConfigurationError: an id stands for several texts, copies of a text would stay, or a signature is needed.
        DiskFull, CacheFull: a bundle does not fit; nothing was erased.
        StorageUnavailable, StorageRefused: object storage does not answer, or says no; nothing was erased.
    """
    if settings.bundle_keys and asked.key is None:
        raise ConfigurationError(
            "WHEREFROM_BUNDLE_KEYS asks for signatures, and the new bundle has none; give the private key with --key"
        )
    holders, texts = _find(database, settings, asked)
    _refuse_held(database, holders, texts)
    replaced = {
        one.bundle.name: _replace(database, settings, one, asked) for one in holders if one.bundle.active
    }
    _erase_stored(database, holders, texts, asked=asked, by=by)
    deleted = delete_unused(database, settings)
    leaving = {one.name: one for one in erased_bundles.leaving(database)}
    registered = catalogue.list_bundles(database)
    here = _readable(settings, registered)
    return Outcome(
        example_ids=tuple(sorted({one.example_id for holder in holders for one in holder.examples} or texts)),
        replaced=replaced,
        deleted=tuple(deleted),
        waiting=tuple(name for name, one in leaving.items() if not one.deleted),
        unseen=tuple(one.name for one in registered if one.name not in leaving and one not in here),
        cleaned=cleaning.clean(database),
    )


def _find(database: Database, settings: Settings, asked: Request) -> tuple[list[_Holder], dict[str, str]]:
    """The bundles that have the examples, and the text hash of each id."""
    bundles = _readable(settings, catalogue.list_bundles(database))
    wanted = set(asked.example_ids)
    found = {one.id: _examples(settings, one, lambda row: row.example_id in wanted) for one in bundles}
    named = None if asked.bundle is None else catalogue.find_bundle(database, asked.bundle).id
    meant = [one for bundle_id, some in found.items() if named in {None, bundle_id} for one in some]
    texts = _texts(meant, wanted, database, named=named)
    same = set(texts.values())
    holders = []
    for bundle in bundles:
        some = _examples(settings, bundle, lambda row: row.text_sha256 in same)
        if not asked.copies:
            _refuse_copies(bundle, [one.example_id for one in some if one.example_id not in wanted])
        if some:
            holders.append(_Holder(bundle, tuple(some)))
    return holders, texts


def _readable(settings: Settings, bundles: Sequence[BundleInfo]) -> list[BundleInfo]:
    """Those of the bundles whose examples can be read from this machine."""
    if settings.bundles_url is not None:
        stored = bundle_names(settings)
        return [one for one in bundles if one.name in stored]
    return [one for one in bundles if (settings.bundles_dir / one.name / EXAMPLES).is_file()]


def _examples(
    settings: Settings, bundle: BundleInfo, is_meant: Callable[[TrainingExample], bool]
) -> list[TrainingExample]:
    """Some of the examples of a bundle."""
    with hold_bundle(settings, bundle.name) as folder:
        return list(filter(is_meant, iter_examples(folder)))


def _texts(
    meant: Sequence[TrainingExample], wanted: Collection[str], database: Database, *, named: int | None
) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for one in meant:
        found.setdefault(one.example_id, set()).add(one.text_sha256)
    if named is None:
        for row in example_erasing.stored(database, set(wanted) - set(found)):
            if not row.erased:
                found.setdefault(row.example_id, set()).add(row.text_sha256)
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise NotFound(f"no bundle of this service has a training example {missing[0]!r}; nothing was erased")
    several = sorted(name for name, texts in found.items() if len(texts) > 1)
    if several:
        raise ConfigurationError(
            f"training example {several[0]!r} has different texts in different bundles; say which with --bundle"
        )
    return {name: next(iter(texts)) for name, texts in found.items()}


def _refuse_copies(bundle: BundleInfo, others: Sequence[str]) -> None:
    """Refuse where a bundle has one of the texts under other ids: rows that came before it may have moved the numbers of a later corpus."""
    if others:
        raise ConfigurationError(
            f"{len(others)} other training examples of {bundle.name} have exactly the same text, such as {others[0]!r}; "
            "add --copies to erase them too, or the text would stay"
        )


def _stored(
    database: Database, holders: Sequence[_Holder], texts: Mapping[str, str]
) -> list[example_erasing.StoredExample]:
    """The stored rows with these texts, also of corpora whose bundles are gone; those that are erased have no text."""
    names = {one.example_id for holder in holders for one in holder.examples} | set(texts)
    known = example_erasing.stored(database, names)
    return [one for one in known if one.text_sha256 in texts.values()]


def _refuse_held(database: Database, holders: Sequence[_Holder], texts: Mapping[str, str]) -> None:
    """Before any bundle is written; the transaction that erases asks again."""
    rows = [one.training_example_id for one in _stored(database, holders, texts)]
    with database.reading() as session:
        holds.refuse_held_examples(session, rows)


def _replace(database: Database, settings: Settings, holder: _Holder, asked: Request) -> str:
    """Write the new bundle to where bundles are and make it the active one; its name."""
    from wherefrom.attribution.bundles.erasing import forget_examples  # noqa: PLC0415 - brings torch

    out = settings.bundles_dir / f".forgetting.{holder.bundle.name}"
    shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
    ids = [one.example_id for one in holder.examples]
    with hold_bundle(settings, holder.bundle.name) as folder:
        made = forget_examples(folder, out, ids, key=asked.key, milvus=settings.milvus_server()).manifest
    check_signature(out, settings.bundle_keys)
    home = settings.bundles_dir / made.name
    copy_note(folder, home)
    if settings.bundles_url is not None:
        add_bundle(database, settings, out, activate=True)
        shutil.rmtree(out)  # object storage has it now
        return made.name
    if home.exists():
        shutil.rmtree(out)
    else:
        move_folder(out, home)
    add_bundle(database, settings, home, activate=True)
    return made.name


def _erase_stored(
    database: Database,
    holders: Sequence[_Holder],
    texts: Mapping[str, str],
    *,
    asked: Request,
    by: str,
) -> None:
    corpora = erased_bundles.corpora_of(database, [one.bundle.id for one in holders])
    examples: dict[int, list[TrainingExample]] = {}
    for holder in holders:
        examples.setdefault(corpora[holder.bundle.id], []).extend(holder.examples)
    for row in _stored(database, holders, texts):
        one = TrainingExample(
            example_id=row.example_id,
            row=0,
            source="",
            prompt="",
            completion="",
            text_sha256=row.text_sha256,
        )
        examples.setdefault(row.corpus_id, []).append(one)
    going = [one.bundle.id for one in holders]
    with database.writing() as session:
        erased = example_erasing.erase_examples(session, examples, by=erasures.BY_REQUEST)
        erasure = erasures.note_examples(session, reason=asked.reason, by=by, erased=erased)
        routing.refuse_active(session, going)
        erased_bundles.mark(session, going, erasure_id=erasure)
