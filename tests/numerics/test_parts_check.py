"""The check of the parts that citations name: the adapter scaled to zero in them, against others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.numerics.test_adapted import ALL_LINEAR, ROWS
from tests.numerics.tolerances import FLOAT32
from tests.tiny import micro_language, random_row, shared_micro_model, write_adapter
from tests.unit.records.test_parts import parts
from wherefrom.attribution.models.ablation import without_adapter
from wherefrom.attribution.models.lora import read_lora
from wherefrom.attribution.models.losses import row_losses
from wherefrom.attribution.models.model import load_model
from wherefrom.evaluation.parts import NamedOutput, check_parts, named_outputs
from wherefrom.records import CitationDraft, Tier, TrainingExample


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose second block does nearly everything."""
    folder = tmp_path_factory.mktemp("parts") / "adapter"
    write_adapter(folder, shared_micro_model(), target_modules=ALL_LINEAR)
    file = folder / "adapter_model.safetensors"
    weak = {
        name: one if ".layers.1." in name or ".lora_A." in name else 0.02 * one
        for name, one in load_file(file).items()
    }
    save_file(weak, file)
    return folder


def test_without_its_adapter_a_model_is_its_base_model(adapter: Path) -> None:
    """All layers zero is the base model, none is the audited one, also after an exception; one block is the model merged without it."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    ids = torch.tensor([ROWS[0].ids])
    whole = final.model(ids).logits
    with without_adapter(final.model, adapted):
        torch.testing.assert_close(final.model(ids).logits, micro_language().model(ids).logits, **FLOAT32)
    with pytest.raises(KeyError), without_adapter(final.model, adapted):
        raise KeyError
    assert torch.equal(final.model(ids).logits, whole)
    other = load_model(shared_micro_model(), adapter)
    second = [layer for layer in adapted if ".layers.1." in layer.name]
    for layer in second:
        other.model.get_submodule(layer.name).weight.data -= layer.high @ layer.low
    with without_adapter(final.model, second):
        torch.testing.assert_close(final.model(ids).logits, other.model(ids).logits, **FLOAT32)


def test_named_parts_change_the_loss_more_where_they_matter(adapter: Path) -> None:
    """The block that does the work against the others, and the other way round; changes are those of a loop."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    rows = [random_row(4, 5, seed=seed) for seed in range(6)]
    checked = check_parts(final.model, adapted, [NamedOutput(row, ("1",)) for row in rows], "block")
    found = checked.to_json()
    assert found["ratio_to_random"]["value"] > 3
    assert found["ratio_to_random"]["interval"][0] > 1
    assert found["ratio_to_others"]["value"] == 1.0  # all name the same
    base = [float(row_losses(final.model, [row])[0]) for row in rows]
    with without_adapter(final.model, [layer for layer in adapted if ".layers.1." in layer.name]):
        gone = [float(row_losses(final.model, [row])[0]) for row in rows]
    np.testing.assert_allclose(checked.named, np.abs(np.array(gone) - np.array(base)), atol=1e-5)
    wrong = check_parts(final.model, adapted, [NamedOutput(row, ("0",)) for row in rows], "block")
    assert wrong.to_json()["ratio_to_random"]["value"] < 1
    with pytest.raises(ValueError, match="only 2 outputs name parts"):
        check_parts(final.model, adapted, [NamedOutput(row, ("0",)) for row in rows[:2]], "block")


def test_parts_of_another_output_are_a_control(adapter: Path) -> None:
    """Each output is also measured with the parts that the next one names that names others."""
    final = load_model(shared_micro_model(), adapter)
    adapted = read_lora(final.model, adapter)
    names = ("1", "1", "0", "2", "0", "2")
    outputs = [NamedOutput(random_row(4, 5, seed=seed), (name,)) for seed, name in enumerate(names)]
    checked = check_parts(final.model, adapted, outputs, "block")
    for place, other in enumerate(("0", "0", "2", "0", "2", "1")):
        twin = check_parts(final.model, adapted, [NamedOutput(outputs[place].row, (other,))] * 5, "block")
        assert checked.others[place] == pytest.approx(twin.named[0], abs=1e-6)


def cited(rank: int, modules: Any) -> CitationDraft:
    """A citation with these parts."""
    example = TrainingExample(
        example_id="a", row=0, source="s", prompt="", completion="", text_sha256="0" * 64
    )
    return CitationDraft(
        rank=rank,
        example=example,
        tier=Tier.INFLUENCE,
        score=1,
        retrieval_score=0,
        influence_score=0.5,
        influence_magnitude=1,
        bm25_score=0,
        similarity_score=0,
        modules=modules,
    )


def test_outputs_whose_first_citation_names_parts() -> None:
    """The first citation decides; one whose influence is spread names nothing."""
    clear, spread = parts([0.0, 0.4, 0.1, 0.0]), parts([0.1, 0.1, 0.1])
    rows = ROWS[:3]
    citations = [[cited(1, clear), cited(2, spread)], [cited(1, spread), cited(2, clear)], []]
    assert named_outputs(rows, citations, "block") == [NamedOutput(rows[0], ("1",))]
