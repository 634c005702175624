"""`wherefrom.attribution.bundles.options`: the form and the weights where nobody chose."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny import shared_micro_model, write_adapter
from wherefrom.attribution.bundles.options import BuildOptions, _weights, form_by_depth, with_readable_form
from wherefrom.attribution.fusion import ADAPTER_WEIGHTS, FusionWeights
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
    adapter = write_adapter(tmp_path / "adapter", model, use_dora=True)
    language = load_model(model, adapter)
    found, why = with_readable_form(language, adapter, BuildOptions())
    assert found.form == form_by_depth(language)
    assert "The form is `forward` instead" in str(why)


def test_weights_of_the_order_shown() -> None:
    """Each form has its own; the user's go before them, and the encoder's may be set alone."""
    assert _weights("activation", BuildOptions()) == FusionWeights()
    assert (
        _weights("adapter", BuildOptions()) == _weights("adapter-forward", BuildOptions()) == ADAPTER_WEIGHTS
    )
    assert _weights("adapter", BuildOptions(encoder_weight=9.0)) == replace(ADAPTER_WEIGHTS, encoder=9.0)
    own = FusionWeights(1, 0, 0)
    assert _weights("adapter", BuildOptions(weights=own)) == own
