"""`wherefrom.attribution.bundles.options`: the form and the weights where nobody chose."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import shared_micro_model, write_adapter
from wherefrom.attribution.bundles.options import (
    BuildOptions,
    _first_block,
    _weights,
    form_by_depth,
    with_readable_form,
)
from wherefrom.attribution.fusion import ADAPTER_WEIGHTS, HALF_WAY_WEIGHTS, FusionWeights
from wherefrom.attribution.models.lora import first_block_read
from wherefrom.attribution.models.model import load_model


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (BuildOptions(), "adapter"),
        (BuildOptions(form="activation"), "activation"),
        (BuildOptions(form="adapter-forward"), "adapter-forward"),
        (BuildOptions(midpoint=True), "auto"),
        (BuildOptions(full_tier=True), "auto"),
    ],
)
def test_a_lora_model_is_read_in_its_adapters_directions(
    tmp_path: Path, options: BuildOptions, form: str
) -> None:
    """Unless the user chose otherwise, or wants what only the other forms have; without an adapter the depth decides."""
    model = shared_micro_model()
    adapter = write_adapter(tmp_path / "adapter", model)
    found, why = with_readable_form(load_model(model, adapter), adapter, options)
    assert (found.form, why) == (form, None)
    assert with_readable_form(load_model(model), None, options) == (options, None)


def test_an_adapter_of_another_kind_gets_the_form_by_depth(tmp_path: Path) -> None:
    """With a word, also where nobody named a form."""
    model = shared_micro_model()
    adapter = write_adapter(tmp_path / "adapter", model, modules_to_save=["lm_head"])
    language = load_model(model, adapter)
    found, why = with_readable_form(language, adapter, BuildOptions())
    assert found.form == form_by_depth(language)
    assert "The form is `forward` instead" in str(why)


def layer_names(*blocks: int) -> list[str]:
    """Two adapted layers in each block."""
    return [f"model.layers.{one}.{kind}" for one in blocks for kind in ("self_attn.q_proj", "mlp.up_proj")]


@pytest.mark.parametrize(
    ("blocks", "first"),
    [
        (range(30), 15),
        (range(12), 6),
        (range(11), None),
        (range(26, 30), None),
        (range(10, 30), 20),
    ],
)
def test_the_upper_half_of_a_deep_adapter_is_read(blocks: range, first: int | None) -> None:
    """Half of the blocks that the adapter adapts, where these are many."""
    assert first_block_read([*layer_names(*blocks), "lm_head"]) == first


def test_blocks_are_chosen_for_forms_that_read_an_adapter(tmp_path: Path) -> None:
    """All of a shallow model; all of a deep one where the user says so; none of the other forms' business."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    assert _first_block("adapter", adapter, BuildOptions()) is None
    _as_deep(adapter)
    assert _first_block("adapter", adapter, BuildOptions()) == 6
    assert _first_block("adapter-forward", adapter, BuildOptions()) == 6
    assert _first_block("adapter", adapter, BuildOptions(blocks="all")) is None
    assert _first_block("activation", adapter, BuildOptions()) is None


def _as_deep(adapter: Path) -> None:
    """Weights of twelve blocks in place of the adapter's own."""
    names = [
        f"base_model.model.{name}.lora_{side}.weight" for name in layer_names(*range(12)) for side in "AB"
    ]
    save_file({name: torch.zeros(2, 2) for name in names}, adapter / "adapter_model.safetensors")


def test_weights_of_the_order_shown() -> None:
    """Each form has its own; the user's go before them, and the encoder's may be set alone."""
    assert _weights("activation", BuildOptions()) == FusionWeights()
    assert _weights("adapter", BuildOptions()) == ADAPTER_WEIGHTS
    assert _weights("adapter", BuildOptions(final=False)) == HALF_WAY_WEIGHTS
    assert _weights("adapter-forward", BuildOptions()) == HALF_WAY_WEIGHTS
    assert _weights("adapter", BuildOptions(encoder_weight=9.0)) == replace(ADAPTER_WEIGHTS, encoder=9.0)
    own = FusionWeights(1, 0, 0)
    assert _weights("adapter", BuildOptions(weights=own)) == own
