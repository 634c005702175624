"""Model folders: what is refused, with what to do; adapters; hashes."""

import contextlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny import (
    changed_json,
    micro_config,
    shared_micro_model,
    write_adapter,
    write_micro_model,
)
from wherefrom.attribution.models.adapter import merge_adapter
from wherefrom.attribution.models.files import fingerprint
from wherefrom.attribution.models.model import load_model
from wherefrom.errors import UnsafeWeights, UnusableModel


@pytest.fixture
def adapter_dir(tmp_path: Path) -> Path:
    """A LoRA adapter of the micro model."""
    return write_adapter(tmp_path / "adapter", shared_micro_model())


def test_loaded_model(micro_model_dir: Path) -> None:
    """A model is frozen, in float32, in evaluation mode, and knows its shape."""
    language = load_model(micro_model_dir)
    assert (language.layers, language.hidden_size, language.max_positions) == (3, 32, 256)
    assert (language.base_folder, language.adapter_folder) == ("model", None)
    assert not language.model.training
    assert all(
        not weight.requires_grad and weight.dtype == torch.float32 for weight in language.model.parameters()
    )


def test_pickle_weights_only(micro_model_dir: Path) -> None:
    """Pickle files are named, never opened, and the way out is told."""
    (micro_model_dir / "model.safetensors").unlink()
    (micro_model_dir / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(
        UnsafeWeights, match=r"only pytorch_model\.bin; .*safetensors only.*safe_serialization=True"
    ):
        load_model(micro_model_dir)


def test_no_weights(micro_model_dir: Path) -> None:
    """A folder without weights says so."""
    (micro_model_dir / "model.safetensors").unlink()
    with pytest.raises(UnsafeWeights, match="model: no weights; wherefrom loads safetensors only"):
        load_model(micro_model_dir)


def test_no_folder(tmp_path: Path) -> None:
    """A path that does not exist is no model, and no hub is asked."""
    with pytest.raises(UnusableModel, match="away: model folder not found"):
        load_model(tmp_path / "away")


def test_code_of_its_own(micro_model_dir: Path) -> None:
    """`auto_map` in the configuration is refused before anything is imported."""
    changed_json(micro_model_dir / "config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    (micro_model_dir / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(UnsafeWeights, match=r"asks to run its own code \(auto_map\)"):
        load_model(micro_model_dir)


def test_tokenizer_with_code_of_its_own(micro_model_dir: Path) -> None:
    """`auto_map` of the tokenizer runs nothing."""
    mark = micro_model_dir / "ran"
    (micro_model_dir / "evil.py").write_text(f"open({str(mark)!r}, 'w')")
    changed_json(
        micro_model_dir / "tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["evil.T", None]}, "tokenizer_class": "EvilTokenizer"},
    )
    with contextlib.suppress(UnusableModel):
        load_model(micro_model_dir)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not readable as JSON"),
        ('{"model_type": "no such"}', "not a known architecture"),
        ("{}", "not a known architecture"),
    ],
)
def test_bad_configuration(micro_model_dir: Path, content: str, problem: str) -> None:
    """A configuration that cannot be read, or of an unknown architecture."""
    (micro_model_dir / "config.json").write_text(content)
    with pytest.raises(UnusableModel, match=problem):
        load_model(micro_model_dir)


def test_missing_configuration(micro_model_dir: Path) -> None:
    """No config.json."""
    (micro_model_dir / "config.json").unlink()
    with pytest.raises(UnusableModel, match=r"holds no config\.json"):
        load_model(micro_model_dir)


def test_missing_tokenizer(micro_model_dir: Path) -> None:
    """No tokenizer at all, and one whose vocabulary is missing."""
    (micro_model_dir / "tokenizer.json").unlink()
    with pytest.raises(UnusableModel, match="tokenizer"):
        load_model(micro_model_dir)
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (micro_model_dir / name).unlink()
    with pytest.raises(UnusableModel, match=r"holds no tokenizer \(tokenizer\.json or tokenizer\.model\)"):
        load_model(micro_model_dir)


def test_broken_weights(micro_model_dir: Path) -> None:
    """A weight file that is no safetensors."""
    (micro_model_dir / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UnusableModel, match="cannot be loaded as a causal language model"):
        load_model(micro_model_dir)


def test_missing_tensors(micro_model_dir: Path) -> None:
    """Weights that are not in the file are not made up."""
    weights = load_file(micro_model_dir / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, micro_model_dir / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UnusableModel, match=r"lack 1 tensors of the architecture, such as model\.layers\.1\.mlp\.up_proj"
    ):
        load_model(micro_model_dir)


def test_adapter_is_merged(adapter_dir: Path) -> None:
    """The adapted weights are the base's plus scale times B A; nothing of PEFT is left in the model."""
    base, adapted = load_model(shared_micro_model()), load_model(shared_micro_model(), adapter_dir)
    stored = load_file(adapter_dir / "adapter_model.safetensors")
    config = json.loads((adapter_dir / "adapter_config.json").read_text())
    name = "model.layers.1.self_attn.q_proj"
    low, high = (stored[f"base_model.model.{name}.lora_{part}.weight"] for part in "AB")
    expected = base.model.state_dict()[f"{name}.weight"] + config["lora_alpha"] / config["r"] * high @ low
    torch.testing.assert_close(adapted.model.state_dict()[f"{name}.weight"], expected)
    assert adapted.model.state_dict().keys() == base.model.state_dict().keys()
    assert adapted.adapter_folder == "adapter"


def _merged_by_peft(adapter: Path) -> dict[str, torch.Tensor]:
    from peft import PeftModel

    base = load_model(shared_micro_model()).model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        merged: dict[str, torch.Tensor] = (
            PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
        )
    return merged


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_plain_adapter_merges_as_by_peft(adapter_dir: Path, *, rank_stabilised: bool) -> None:
    """The same bytes as peft makes of a plain adapter."""
    changed_json(adapter_dir / "adapter_config.json", {"use_rslora": rank_stabilised})
    ours = load_model(shared_micro_model(), adapter_dir).model.state_dict()
    theirs = _merged_by_peft(adapter_dir)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_merging_keeps_the_parameters(adapter_dir: Path) -> None:
    """The weights of an adapted layer change, the parameter stays: what is tied to it (a head to its embedding) stays tied."""
    model = load_model(shared_micro_model()).model
    before = dict(model.named_parameters())
    sums = {name: float(weight.double().sum()) for name, weight in before.items()}
    merge_adapter(model, adapter_dir)
    assert all(weight is before[name] for name, weight in model.named_parameters())
    assert any(sums[name] != float(weight.double().sum()) for name, weight in before.items())


def test_other_kinds_of_adapter(tmp_path: Path) -> None:
    """What is more than plain LoRA goes through peft: DoRA, adapted embeddings, a scale of its own for some layers."""
    kinds: list[dict[str, Any]] = [
        {"use_dora": True},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"alpha_pattern": {"q_proj": 64}},
    ]
    for number, more in enumerate(kinds):
        adapter = write_adapter(tmp_path / str(number), shared_micro_model(), **more)
        ours = load_model(shared_micro_model(), adapter).model.state_dict()
        theirs = _merged_by_peft(adapter)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), more


@pytest.mark.parametrize("content", ["{", "[]", '{"peft_type": "NONE"}'])
def test_bad_adapter_configuration(adapter_dir: Path, content: str) -> None:
    """An adapter configuration that cannot be read."""
    (adapter_dir / "adapter_config.json").write_text(content)
    with pytest.raises(UnusableModel):
        load_model(shared_micro_model(), adapter_dir)


def test_adapter_without_targets_in_the_model(adapter_dir: Path) -> None:
    """No layer of these names, and an adapter that lacks one of a pair."""
    changed_json(adapter_dir / "adapter_config.json", {"target_modules": ["no_such"]})
    with pytest.raises(UnusableModel, match="do not exist in this model"):
        load_model(shared_micro_model(), adapter_dir)
    changed_json(adapter_dir / "adapter_config.json", {"target_modules": ["q_proj", "v_proj"]})
    weights = load_file(adapter_dir / "adapter_model.safetensors")
    del weights[min(weights)]
    save_file(weights, adapter_dir / "adapter_model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnusableModel, match="lacks weights for layers"):
        load_model(shared_micro_model(), adapter_dir)


def test_adapter_of_another_model(tmp_path: Path, adapter_dir: Path) -> None:
    """Other widths, fewer layers, more layers: an adapter that does not fit is refused, not applied in part."""
    for name, changes in {
        "wide": {"hidden_size": 64},
        "deep": {"num_hidden_layers": 4},
        "flat": {"num_hidden_layers": 2},
    }.items():
        other = write_micro_model(tmp_path / name, micro_config(**changes))
        with pytest.raises(
            UnusableModel, match=r"size mismatch|lacks weights for layers|do not exist in this model"
        ):
            load_model(other, adapter_dir)


def test_adapter_with_pickle_weights(adapter_dir: Path) -> None:
    """A pickle adapter is refused, also beside some other safetensors file."""
    shutil.move(adapter_dir / "adapter_model.safetensors", adapter_dir / "other.safetensors")
    (adapter_dir / "adapter_model.bin").write_bytes(b"cos\nsystem\n")
    with pytest.raises(UnsafeWeights, match=r"adapter: only adapter_model\.bin"):
        load_model(shared_micro_model(), adapter_dir)


def test_incomplete_adapter(adapter_dir: Path, tmp_path: Path) -> None:
    """No folder, and no configuration in it."""
    with pytest.raises(UnusableModel, match="away: adapter folder not found"):
        load_model(shared_micro_model(), tmp_path / "away")
    (adapter_dir / "adapter_config.json").unlink()
    with pytest.raises(UnusableModel, match=r"adapter: holds no adapter_config\.json"):
        load_model(shared_micro_model(), adapter_dir)


def test_fingerprint(micro_model_dir: Path, adapter_dir: Path) -> None:
    """Weights, tokenizer and adapter have a hash each; the folder's name has none."""
    first = fingerprint(micro_model_dir, adapter_dir)
    assert first == fingerprint(
        Path(shutil.copytree(micro_model_dir, micro_model_dir.with_name("copy"))), adapter_dir
    )
    assert fingerprint(micro_model_dir, None).adapter_sha256 is None
    (micro_model_dir / "chat_template.jinja").write_text("{{ messages }}")
    changed = fingerprint(micro_model_dir, adapter_dir)
    assert changed.tokenizer_sha256 != first.tokenizer_sha256
    assert (changed.weights_sha256, changed.adapter_sha256) == (first.weights_sha256, first.adapter_sha256)
    changed_json(adapter_dir / "adapter_config.json", {"lora_alpha": 99})
    assert fingerprint(micro_model_dir, adapter_dir).adapter_sha256 != first.adapter_sha256
