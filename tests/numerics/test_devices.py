"""The engine on a device (`--device cuda`; the CPU without it), in float32 and bfloat16, against the CPU in float32.

Only the pass through the model may be in bfloat16: what comes from it is float32, and scores stay near.
"""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numerics.tolerances import FLOAT32
from tests.tiny import (
    TINY_MODEL,
    build,
    micro_language,
    random_row,
    shared_bundle,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    write_adapter,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.ekfac.factors import fit_ekfac
from wherefrom.attribution.ekfac.scores import EkfacScorer
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.losses import row_losses
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.reading import AdapterReading, make_reader
from wherefrom.attribution.models.trajectory import load_halfway
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import Training, fine_tune, mean_losses

ROWS = [random_row(4 + number, 3 + number % 3, seed=number) for number in range(8)]
#: Least cosine with the CPU in float32.
FLOORS = {torch.float32: 0.999, torch.bfloat16: 0.99}
FORMS = ("forward", "activation", "adapter")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def placement(request, device) -> Placement:
    """The device of this run, with both kinds of numbers."""
    return Placement(device, request.param)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> ModelFolders:
    """The micro model with an adapter."""
    adapter = write_adapter(tmp_path_factory.mktemp("adapter") / "lora", shared_micro_model())
    return ModelFolders(shared_micro_model(), adapter)


def nothing(_stage: str, _done: int, _total: int) -> None:
    """No progress."""


def least_cosine(found: Tensor, expected: Tensor) -> float:
    """Over the rows of two matrices."""
    one, other = (matrix.cpu().flatten(1) for matrix in (found, expected))
    return float(torch.nn.functional.cosine_similarity(one, other, dim=1).min())


@pytest.mark.parametrize("form", FORMS)
def test_signals_are_those_of_the_cpu(placement, folders, form):
    """States, error signals, pooled states and losses, token by token, in float32 whatever the pass was in."""
    read = []
    for place in (placement, CPU):
        language = load_model(folders.model, folders.adapter, placement=place)
        reader = make_reader(
            [language],
            form=form,
            layers=(1, 3),
            similarity_layer=2,
            adapter=AdapterReading(folders.adapter, final=True),
        )
        assert reader.split_pass, "bfloat16 must not cost the split pass"
        read.append(reader.read(ROWS))
    found, expected = read
    for name in ("a", "b", "pooled", "loss"):
        assert getattr(found, name).dtype is torch.float32
        assert getattr(found, name).device == placement.device
    floor = FLOORS[placement.dtype]
    assert least_cosine(found.a, expected.a) >= floor
    assert least_cosine(found.b, expected.b) >= floor
    assert least_cosine(found.pooled, expected.pooled) >= floor
    rough = {"rtol": 2e-2, "atol": 2e-2} if placement.dtype is torch.bfloat16 else FLOAT32
    torch.testing.assert_close(found.loss.cpu(), expected.loss, **rough)


def test_a_bundle_of_the_cpu_is_served_anywhere(placement, tmp_path):
    """Exact scores and citations of an old bundle, whose manifest knows no device."""
    asked = write_jsonl(tmp_path / "queries.jsonl", tiny_queries(4))
    found = []
    for place in (placement, CPU):
        bundle = open_bundle(shared_bundle(), ModelFolders(TINY_MODEL), placement=place)
        attributor = LanguageAttributor(bundle)
        prepared = prepare_all(attributor, read_queries(asked)[0], max_tokens=128, over_long="truncate")
        scores = exact_scores(bundle, signals_of_all(attributor, prepared), nothing)
        cited = attribute_all(attributor, prepared, top_k=3, opponents=2, progress=nothing)
        found.append((torch.from_numpy(scores), [one.citations[0].example.example_id for one in cited]))
    assert least_cosine(found[0][0], found[1][0]) >= FLOORS[placement.dtype]
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("form", ["activation", "adapter", "adapter-forward"])
def test_a_bundle_is_built_there(placement, folders, tmp_path, form):
    """Whitening, kernel norms and projection come out as on the CPU, and the manifest says what it was built on."""
    built = []
    for place, out in ((placement, tmp_path / "there"), (CPU, tmp_path / "cpu")):
        manifest = build(
            folders.model, shared_corpus(40), out, adapter=folders.adapter, form=form, placement=place
        )
        built.append(
            (manifest, np.load(out / "features" / "norms.npy"), np.load(out / "features" / "vectors.npy"))
        )
    (manifest, norms, vectors), (_, expected_norms, expected) = built
    said = read_manifest(tmp_path / "there").built_on
    assert said is not None
    assert (said.device, said.dtype) == (placement.device.type, placement.dtype_name)
    assert manifest.name == read_manifest(tmp_path / "there").name
    rough = 0.05 if placement.dtype is torch.bfloat16 else 1e-3
    np.testing.assert_allclose(norms, expected_norms, rtol=rough)
    products, others = vectors @ vectors.T, expected @ expected.T  # the directions' signs and order are free
    assert least_cosine(torch.from_numpy(products), torch.from_numpy(others)) >= FLOORS[placement.dtype]


def test_ekfac_scores_are_those_of_the_cpu(placement):
    """Factors, norms and scores of the full tier."""
    found = []
    for place in (placement, CPU):
        language = load_model(shared_micro_model(), placement=place)
        factors = fit_ekfac(language, ROWS, progress=nothing)
        scored = EkfacScorer(language, factors).scores(ROWS[:3], ROWS)
        assert scored.dot.device.type == "cpu"
        found.append(scored.cosine)
    assert least_cosine(*found) >= FLOORS[placement.dtype]


def test_losses_are_those_of_the_cpu(placement):
    """Of rows, as the check of learning and the check of parts take them."""
    there = load_model(shared_micro_model(), placement=placement)
    rough = {"rtol": 2e-2, "atol": 2e-2} if placement.dtype is torch.bfloat16 else FLOAT32
    torch.testing.assert_close(
        row_losses(there.model, ROWS), row_losses(micro_language().model, ROWS), **rough
    )


def test_an_adapter_is_trained_there(placement):
    """From the same first weights in the same order; its own numbers are float32 beside a base in bfloat16."""
    recipe = Recipe(learning_rate=1e-2, batch_size=4, epochs=1, lora=Lora(rank=4, alpha=8))
    trained = fine_tune(load_model(shared_micro_model(), placement=placement), ROWS, recipe, seed=3)
    own = [one for name, one in trained.named_parameters() if ".lora_" in name]
    assert {(one.dtype, one.device) for one in own} == {(torch.float32, placement.device)}
    expected = mean_losses(fine_tune(micro_language(), ROWS, recipe, seed=3), ROWS)
    rough = 0.1 if placement.dtype is torch.bfloat16 else 1e-3
    np.testing.assert_allclose(mean_losses(trained, ROWS), expected, rtol=rough)


def test_all_weights_are_not_trained_in_bfloat16(device):
    """Most steps would round to nothing."""
    rounded = load_model(shared_micro_model(), placement=Placement(device, torch.bfloat16))
    with pytest.raises(ConfigurationError, match="needs float32"):
        Training(rounded, ROWS, Recipe(), seed=0)


def test_the_half_way_model_is_rounded_once(device, folders):
    """Its weights are the mean in float32, then bfloat16; the model that it is made from stays."""
    place = Placement(device, torch.bfloat16)
    final = load_model(folders.model, folders.adapter, placement=place)
    before = {name: one.clone() for name, one in final.model.named_parameters()}
    middle = load_halfway(final, folders)
    assert (middle.dtype, middle.device) == (torch.bfloat16, final.device)
    begin = dict(load_model(folders.model, folders.adapter, merge=False).model.named_parameters())
    for name, one in middle.model.named_parameters():
        exact = (before[name].float().cpu() + begin[name]) / 2
        torch.testing.assert_close(one.float().cpu(), exact, rtol=1e-2, atol=1e-4)
        assert torch.equal(dict(final.model.named_parameters())[name], before[name])
