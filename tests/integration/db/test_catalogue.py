"""Bundles: registered once, one active per model, nothing half-known."""

import pytest

from db.bundles import catalogue
from db.models import Bundle, TrainingExample
from db.session import Database
from tests.integration.db.builders import (
    MODEL,
    accept,
    at_once,
    audit_row,
    claim,
    count,
    example,
    record,
    register,
    sha256,
)
from wherefrom.errors import BundleMismatch, UnknownBundle


def test_a_registered_bundle_is_told(db: Database, bundle_id: int) -> None:
    """By id, by name and in the lists, with the facts of its manifest."""
    info = catalogue.bundle_by_id(db, bundle_id)
    assert (info.name, info.model, info.form, info.active) == ("bundle-a", MODEL, "forward", True)
    assert (info.corpus_sha256, info.corpus_examples) == (sha256("corpus"), 5)
    assert catalogue.bundle_by_name(db, "bundle-a") == info
    assert catalogue.list_bundles(db) == catalogue.active_bundles(db) == [info]
    assert count(db, TrainingExample) == 5


def test_unknown_bundles_are_named(db: Database) -> None:
    """The text says what was looked for."""
    with pytest.raises(UnknownBundle, match="id 4711"):
        catalogue.bundle_by_id(db, 4711)
    with pytest.raises(UnknownBundle, match="'nobody'"):
        catalogue.bundle_by_name(db, "nobody")


def test_registering_again_changes_nothing(db: Database, bundle_id: int) -> None:
    """The same id, and the corpus is not even read."""
    unread = iter([example(0)])
    assert register(db, examples=unread) == bundle_id
    assert len(list(unread)) == 1
    assert count(db, Bundle) == 1


def test_a_card_that_was_measured_since_is_refreshed(db: Database, bundle_id: int) -> None:
    """The card follows the last registration; everything else stays."""
    before = catalogue.bundle_by_id(db, bundle_id)
    card = {"quality": {"measures": {"recall@1": {"value": 0.79}}}}
    assert register(db, card=card) == bundle_id
    after = catalogue.bundle_by_id(db, bundle_id)
    assert (before.card, after.card) == ({"lds": 0.6}, card)
    assert after.model_copy(update={"card": before.card}) == before


def test_a_new_bundle_retires_the_old_one(db: Database, bundle_id: int) -> None:
    """New audits and pending ones go to the new bundle; registering the old one again brings it back."""
    (old,) = accept(db, record(1))
    second = register(db, "bundle-b", form="activation")
    (new,) = accept(db, record(2))
    assert old.audit_id is not None
    assert new.audit_id is not None
    assert audit_row(db, old.audit_id).bundle_id == second
    assert audit_row(db, new.audit_id).bundle_id == second
    assert [one.id for one in catalogue.active_bundles(db)] == [second]
    assert [one.id for one in catalogue.list_bundles(db)] == [second, bundle_id]
    register(db)
    assert [one.id for one in catalogue.active_bundles(db)] == [bundle_id]


def test_without_activation_nothing_is_routed(db: Database) -> None:
    """A bundle on trial gets no audits; activating it later queues those that waited."""
    first = register(db, activate=False)
    (waiting,) = accept(db, record())
    assert waiting.code == "unknown_model"
    assert register(db, activate=True) == first
    assert [one.audit_id for one in claim(db, first).audits] == [waiting.audit_id]


def test_other_models_keep_their_bundles(db: Database, bundle_id: int) -> None:
    """One active bundle per model, not one in all."""
    register(db, "bundle-b", model="another")
    assert len(catalogue.active_bundles(db)) == 2


@pytest.mark.parametrize("column", ["weights_sha256", "adapter_sha256", "tokenizer_sha256"])
def test_a_model_name_stands_for_one_set_of_weights(db: Database, bundle_id: int, column: str) -> None:
    """Other weights under a known name are refused, and the text says which and what to do."""
    with pytest.raises(BundleMismatch, match=f"{column}.*its own name"):
        register(db, "bundle-b", **{column: sha256("other")})


@pytest.mark.parametrize(
    "change", [{"model": "another"}, {"corpus_sha256": sha256("other")}, {"form": "activation"}]
)
def test_a_bundle_name_stands_for_one_bundle(db: Database, bundle_id: int, change: dict[str, str]) -> None:
    """A known name with other content is refused."""
    with pytest.raises(BundleMismatch, match="bundle-a"):
        register(db, **change)


def test_a_larger_corpus_is_stored_in_chunks(db: Database) -> None:
    """More rows than one statement takes variables."""
    total = 4321
    register(db, corpus_examples=total, examples=(example(number) for number in range(total)))
    assert count(db, TrainingExample) == total


def test_a_large_corpus_stays_in_its_files(db: Database) -> None:
    """Above the limit no example is stored before it is cited."""
    register(db, corpus_examples=catalogue.STORED_CORPUS_LIMIT + 1)
    assert count(db, TrainingExample) == 0


def test_registration_goes_on_after_it_was_stopped(db: Database) -> None:
    """A corpus that ends in an error leaves no bundle; calling again completes it."""

    def broken() -> object:
        yield from (example(number) for number in range(3000))
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        register(db, corpus_examples=4000, examples=broken())
    assert count(db, Bundle) == 0
    register(db, corpus_examples=4000, examples=[example(number) for number in range(4000)])
    assert count(db, TrainingExample) == 4000


def test_registering_from_several_processes_at_once(db: Database) -> None:
    """All get the same id."""
    assert len(set(at_once([lambda: register(db)] * 4))) == 1
    assert count(db, TrainingExample) == 5
