"""What similarity compares: hidden states as before, or what an adapter saw, in its principal directions."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.numerics.tolerances import FLOAT32
from tests.tiny import build, shared_corpus, shared_micro_model, write_adapter
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import prepare_all, read_queries, signals_of_all
from wherefrom.attribution.retrieval.pooling import DIRECTIONS, Pooling
from wherefrom.errors import ConfigurationError


def test_directions_keep_inner_products_of_the_corpus() -> None:
    """Of states that span fewer directions than are kept: among themselves, and with anything else."""
    generator = torch.Generator().manual_seed(2)
    states = torch.randn(40, 600, generator=generator) + 3.0
    pooling = Pooling.fit(states, "adapter")
    unit = torch.nn.functional.normalize(states - states.mean(dim=0), dim=1)
    found = pooling.apply(states)
    assert found.shape[1] <= min(40, DIRECTIONS)
    torch.testing.assert_close(found @ found.T, unit @ unit.T, rtol=1e-3, atol=1e-4)
    other = torch.randn(3, 600, generator=generator) + 3.0
    expected = torch.nn.functional.normalize(other - states.mean(dim=0), dim=1) @ unit.T
    torch.testing.assert_close(pooling.apply(other) @ found.T, expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(Pooling.fit(states, "hidden").apply(states), unit, **FLOAT32)


@pytest.mark.parametrize("form", ["adapter", "adapter-forward"])
def test_the_mean_of_what_the_adapter_saw(form: str, tmp_path: Path) -> None:
    """Similarity scores of a bundle are the cosines of mean u over the explained tokens, centred at the corpus' mean; a row finds itself."""
    model = shared_micro_model()
    adapter = write_adapter(tmp_path / "lora", model)
    corpus, out = shared_corpus(40), tmp_path / "bundle"
    build(model, corpus, out, adapter=adapter, form=form, similarity="adapter")
    bundle = open_bundle(out, ModelFolders(model, adapter))
    engine = LanguageAttributor(bundle)
    prepared = prepare_all(engine, read_queries(corpus)[0][:4], max_tokens=256, over_long="reject")
    signals = signals_of_all(engine, prepared)
    read = bundle.reader.read(bundle.tokens.read(range(40)))
    mean = torch.stack([one.mean(dim=0).flatten() for one in read.a.split(read.lengths)])
    unit = torch.nn.functional.normalize(mean - mean.mean(dim=0), dim=1).numpy()
    found = np.stack([one.signals.pooled for one in signals]) @ np.asarray(bundle.pooled).T
    np.testing.assert_allclose(found, unit[:4] @ unit.T, atol=2e-3)
    assert found.argmax(axis=1).tolist() == [0, 1, 2, 3]
    assert read_manifest(out).parameters.similarity == "adapter"


def test_other_forms_cannot_compare_what_an_adapter_saw(tmp_path: Path) -> None:
    """The refusal names the option and the forms that can."""
    model = shared_micro_model()
    adapter = write_adapter(tmp_path / "lora", model)
    with pytest.raises(ConfigurationError, match=r"--similarity adapter .* choose --form adapter"):
        build(
            model, shared_corpus(40), tmp_path / "out", adapter=adapter, form="forward", similarity="adapter"
        )
