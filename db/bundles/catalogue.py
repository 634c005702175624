"""Bundles as the database knows them: registered once by name, one active per model. Their files are others' business."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.bundles import routing
from db.faults import refusals_as_errors
from db.models import Base, Bundle, Corpus, ModelRevision, TrainingExample
from db.session import Database
from db.statements import AnySelect, insert_new
from db.storing.examples import CHUNK, add_examples, storable_json
from wherefrom import records
from wherefrom.errors import BundleMismatch, UnknownBundle
from wherefrom.records import BundleInfo

#: A corpus up to this size is stored whole; of a larger one only what is cited.
STORED_CORPUS_LIMIT = 50_000


def register_bundle(  # noqa: PLR0913 - the facts of a manifest, all by keyword
    db: Database,
    *,
    name: str,
    model: str,
    weights_sha256: str,
    adapter_sha256: str | None,
    tokenizer_sha256: str,
    corpus_sha256: str,
    corpus_name: str,
    corpus_examples: int,
    form: str,
    card: dict[str, Any],
    examples: Iterable[records.TrainingExample],
    activate: bool = True,
) -> int:
    """Make a bundle known; registering it again changes nothing but its card and, with `activate`, which bundle is active.

    The examples come first, in transactions of their own, so that intake and workers go on meanwhile and a run that was stopped
    can be repeated. With `activate` the model's other bundles retire; their pending audits, and those that waited for a bundle of this model, go to this one.

    Args:
        db: The database.
        name: The bundle's content name.
        model: What producers put into `model`; it stands for one set of weights for ever.
        weights_sha256: Hash of the weights, likewise of adapter (None without one), tokenizer and corpus.
        adapter_sha256: See above.
        tokenizer_sha256: See above.
        corpus_sha256: See above.
        corpus_name: Name of the corpus for people.
        corpus_examples: How many examples the corpus has.
        form: The kernel's form, ``forward`` or ``activation``.
        card: The measured quality and cost of the bundle.
        examples: The corpus; read only if it has at most `STORED_CORPUS_LIMIT` examples and is not stored yet.
        activate: Whether new audits of the model go to this bundle.

    Returns:
        The bundle's id.

    Raises:
        BundleMismatch: `model` is known with other weights, or `name` is known for another model or corpus.
        UnstorableRecord, ValueTooLong: the database refuses a name or an example.
        DatabaseUnavailable: the database is away; call again.
    """
    weights = {
        "weights_sha256": weights_sha256,
        "adapter_sha256": adapter_sha256,
        "tokenizer_sha256": tokenizer_sha256,
    }
    with refusals_as_errors(), db.writing() as session:
        model_id = _model_revision(session, model, weights)
        corpus = {"name": corpus_name, "examples": corpus_examples}
        corpus_id = _known_id(session, Corpus, {"sha256": corpus_sha256}, corpus)
    _store_corpus(db, corpus_id, corpus_examples, examples)
    facts = {"model_revision_id": model_id, "corpus_id": corpus_id, "form": form}
    return _store_bundle(db, name, facts, card=card, activate=activate)


def _store_bundle(
    db: Database, name: str, facts: dict[str, Any], *, card: dict[str, Any], activate: bool
) -> int:
    with refusals_as_errors(), db.writing() as session:
        bundle_id = _bundle(session, name, facts, card)
        if activate:
            routing.switch_to(session, bundle_id)
    if activate:
        routing.follow_switch(db)
    return bundle_id


def bundle_by_id(db: Database, bundle_id: int) -> BundleInfo:
    """One bundle.

    Raises:
        UnknownBundle: there is none with this id.
    """
    return _one(db, _BUNDLES.where(Bundle.id == bundle_id), f"id {bundle_id}")


def bundle_by_name(db: Database, name: str) -> BundleInfo:
    """One bundle.

    Raises:
        UnknownBundle: there is none with this name.
    """
    return _one(db, _BUNDLES.where(Bundle.name == name), f"name {name!r}")


def find_bundle(db: Database, named: str) -> BundleInfo:
    """One bundle, by its name or by its id in digits.

    Raises:
        UnknownBundle: there is none.
    """
    found = _many(db, _BUNDLES.where(Bundle.name == named))
    if not found and named.isascii() and named.isdigit() and len(named) < 19:
        return bundle_by_id(db, int(named))
    if not found:
        raise UnknownBundle(
            f"no registered bundle has the name or id {named!r}; list them with `python -m worker bundles`"
        )
    return found[0]


def list_bundles(db: Database) -> list[BundleInfo]:
    """All bundles, newest first."""
    return _many(db, _BUNDLES)


def active_bundles(db: Database) -> list[BundleInfo]:
    """The bundles that new audits go to, newest first."""
    return _many(db, _BUNDLES.where(Bundle.active))


_BUNDLES: AnySelect = (
    select(
        Bundle.id,
        Bundle.name,
        ModelRevision.name.label("model"),
        Corpus.sha256.label("corpus_sha256"),
        Corpus.examples.label("corpus_examples"),
        Bundle.form,
        Bundle.active,
        Bundle.created_at,
        Bundle.card,
    )
    .join(ModelRevision, ModelRevision.id == Bundle.model_revision_id)
    .join(Corpus, Corpus.id == Bundle.corpus_id)
    .order_by(Bundle.id.desc())
)


def _one(db: Database, query: AnySelect, what: str) -> BundleInfo:
    found = _many(db, query)
    if not found:
        raise UnknownBundle(f"no bundle with {what} is registered")
    return found[0]


def _many(db: Database, query: AnySelect) -> list[BundleInfo]:
    with db.reading() as session:
        return [BundleInfo(**row) for row in session.execute(query).mappings()]


def _known_id(session: Session, model: type[Base], unique: dict[str, Any], others: dict[str, Any]) -> int:
    """The id of the row with these unique values; it is made if it is not there."""
    columns = tuple(getattr(model, name) for name in unique)
    session.execute(insert_new(session, model, columns), [unique | others])
    known: int = session.scalars(select(model.__table__.c.id).filter_by(**unique)).one()
    return known


def _model_revision(session: Session, name: str, weights: dict[str, str | None]) -> int:
    model_id = _known_id(session, ModelRevision, {"name": name}, weights)
    known = session.get_one(ModelRevision, model_id)
    for column, given in weights.items():
        if getattr(known, column) != given:
            raise BundleMismatch(
                f"the model {name!r} is registered with another {column} ({getattr(known, column)}, not {given}); "
                "give the new revision its own name"
            )
    return model_id


def _store_corpus(
    db: Database, corpus_id: int, count: int, examples: Iterable[records.TrainingExample]
) -> None:
    """Store a corpus that is not too large and not stored yet."""
    with db.reading() as session:
        stored = session.scalar(select(func.count()).where(TrainingExample.corpus_id == corpus_id))
    if count > STORED_CORPUS_LIMIT or stored == count:
        return
    remaining = iter(examples)
    while chunk := list(islice(remaining, 4 * CHUNK)):
        with refusals_as_errors(), db.writing() as session:
            add_examples(session, corpus_id, chunk)


def _bundle(session: Session, name: str, facts: dict[str, Any], card: dict[str, Any]) -> int:
    """The bundle's id; it is made, inactive, if it is not known."""
    existed = session.scalar(select(Bundle.id).where(Bundle.name == name)) is not None
    bundle_id = _known_id(
        session, Bundle, {"name": name}, facts | {"active": False, "card": storable_json(card)}
    )
    known = session.get_one(Bundle, bundle_id)
    if any(getattr(known, column) != given for column, given in facts.items()):
        raise BundleMismatch(f"the bundle {name!r} is registered for another model, corpus or form")
    if known.card != (given := storable_json(card)):
        known.card = given  # measured anew; the card is no part of the name
    if not existed:
        record_events(session, [Event(TrailKind.BUNDLE_REGISTERED, f"bundle:{bundle_id}", {"name": name})])
    return bundle_id
