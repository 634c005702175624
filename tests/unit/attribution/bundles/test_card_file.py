"""The card of a finished bundle is replaced whole or not at all, and a stopped replacement can be finished."""

import json
import os
from pathlib import Path

import pytest

from wherefrom.attribution.bundles.card_file import finish_replacing, replace_card
from wherefrom.attribution.bundles.manifest import read_card, read_manifest
from wherefrom.errors import BundleCorrupt, BundleMismatch


def test_a_card_is_replaced_under_the_same_name(micro_bundle: Path) -> None:
    """The bundle verifies, everything but card and manifest keeps its bytes, nothing waits beside it."""
    before = read_manifest(micro_bundle)
    after = replace_card(micro_bundle, {"quality": {"n": 1}})
    assert read_manifest(micro_bundle) == after
    assert after.name == before.name
    assert {name for name in before.files if before.files[name] != after.files[name]} == {"card.json"}
    assert read_card(micro_bundle) == {"quality": {"n": 1}}
    assert not list(micro_bundle.parent.glob(".*"))
    assert not finish_replacing(micro_bundle)


def test_a_linked_copy_keeps_its_card(micro_bundle: Path, tmp_path: Path) -> None:
    """Calibrated copies share files by hard links: the new card is another file."""
    linked = tmp_path / "linked.json"
    os.link(micro_bundle / "card.json", linked)
    old = linked.read_bytes()
    replace_card(micro_bundle, {"quality": {}})
    assert linked.read_bytes() == old


def test_a_replacement_that_was_stopped_between_its_moves(
    micro_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle says what to do, and doing it makes it whole."""
    name = read_manifest(micro_bundle).name
    move = Path.replace

    def stop(self: Path, target: Path) -> Path:
        if target.name == "manifest.json":
            raise KeyboardInterrupt
        return move(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            replace_card(micro_bundle, {"quality": {"n": 2}})
    with pytest.raises(BundleCorrupt, match=r"card\.json has changed.*run it again"):
        read_manifest(micro_bundle)
    assert finish_replacing(micro_bundle)
    assert read_manifest(micro_bundle).name == name
    assert read_card(micro_bundle) == {"quality": {"n": 2}}


def test_a_card_changed_by_hand_is_not_accepted(micro_bundle: Path) -> None:
    """Without a waiting manifest that states its hash, it stays refused."""
    (micro_bundle / "card.json").write_text("{}")
    assert not finish_replacing(micro_bundle)
    with pytest.raises(BundleCorrupt, match=r"card\.json has changed"):
        replace_card(micro_bundle, {})


def test_numbers_without_a_json_form_are_refused(micro_bundle: Path) -> None:
    """NaN would make a card that others cannot read; the bundle stays as it was."""
    before = read_manifest(micro_bundle)
    with pytest.raises(ValueError, match="JSON"):
        replace_card(micro_bundle, {"value": float("nan")})
    assert read_manifest(micro_bundle) == before


def test_a_card_of_before_with_numbers_that_json_has_no_form_for_is_read(micro_bundle: Path) -> None:
    """Earlier releases wrote NaN and Infinity as Python does; such a figure is missing, and the card can be replaced."""
    (micro_bundle / "card.json").write_text(
        '{"mean_loss_nats": Infinity, "cost": {"seconds": [NaN, 1e999, 2.5]}, "calibration": {"calibrated": "no"}}'
    )
    card = read_card(micro_bundle)
    assert card == {
        "mean_loss_nats": None,
        "cost": {"seconds": [None, None, 2.5]},
        "calibration": {"calibrated": "no"},
    }
    json.dumps(card, allow_nan=False)


def test_figures_of_other_rows_are_refused(micro_bundle: Path) -> None:
    """As many training examples, other ones: a card that was measured on them is not this bundle's. A card of before does not say its rows."""
    corpus = read_manifest(micro_bundle).corpus.sha256
    with pytest.raises(BundleMismatch, match="measured on other training examples"):
        replace_card(micro_bundle, {"quality": {"corpus_sha256": "0" * 64}})
    for quality in ({"corpus_sha256": corpus}, {}):
        assert replace_card(micro_bundle, {"quality": quality}).corpus.sha256 == corpus
