"""Adapters as people have them: tied and resized embeddings, tokenizers of their own, adapters that were never trained."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny import VOCABULARY, micro_config, shared_micro_model, write_adapter, write_micro_model
from wherefrom.attribution.models.files import ModelFolders, fingerprint
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.trajectory import load_halfway
from wherefrom.errors import UnusableModel

TIED: dict[str, dict[str, Any]] = {
    "head": {"target_modules": ["lm_head", "q_proj"]},
    "embeddings": {"target_modules": ["embed_tokens"]},
    "both": {"target_modules": ["embed_tokens", "lm_head"]},
    "tied adapters": {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "saved norm": {"modules_to_save": ["norm"]},
    "token indices": {"trainable_token_indices": [3, 4]},
    "resized": {"resize": 5},
    "resized, head": {"resize": 5, "target_modules": ["lm_head", "q_proj"]},
    "resized, embeddings": {"resize": 5, "target_modules": ["embed_tokens", "q_proj"]},
    "shrunk": {"resize": -7},
}


def _adapted(base: Path, out: Path, *, resize: int = 0, **more: Any) -> torch.Tensor:
    """Save a trained adapter of a model, and give the logits of peft's own forward pass."""
    from peft import LoraConfig, get_peft_model  # slow to import

    torch.manual_seed(3)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(str(base))
    if resize:
        model.resize_token_embeddings(model.config.vocab_size + resize, mean_resizing=False)
    plain = {"r": 4, "target_modules": ["q_proj"], "init_lora_weights": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's advice on tied weights
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{**plain, **more})).eval()
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.05)
            logits: torch.Tensor = adapted(input_ids=_IDS).logits
        adapted.save_pretrained(str(out))
    return logits


_IDS = torch.arange(2, 20).reshape(2, 9) * 37


@pytest.mark.parametrize("kind", TIED)
def test_adapters_of_tied_models(tmp_path: Path, tied_model: Path, kind: str) -> None:
    """Embeddings and head that share a weight: merged, the model computes what peft computes with the adapter beside it."""
    expected = _adapted(tied_model, tmp_path / "adapter", **TIED[kind])
    with torch.no_grad():
        found = load_model(tied_model, tmp_path / "adapter").model(input_ids=_IDS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro model whose head is its embeddings."""
    return write_micro_model(
        tmp_path_factory.mktemp("tied") / "model", micro_config(tie_word_embeddings=True)
    )


def test_base_of_a_resized_adapter(tmp_path: Path, tied_model: Path) -> None:
    """What such a fine-tune began with has the adapter's number of embeddings too, so that the half-way model can be made."""
    _adapted(tied_model, tmp_path / "adapter", resize=5)
    final = load_model(tied_model, tmp_path / "adapter")
    begin = load_model(tied_model, tmp_path / "adapter", merge=False)
    assert len(begin.model.get_input_embeddings().weight) == VOCABULARY + 5
    middle = load_halfway(final, ModelFolders(tied_model, tmp_path / "adapter"))
    torch.testing.assert_close(
        middle.model.get_input_embeddings().weight, final.model.get_input_embeddings().weight
    )


@pytest.mark.parametrize(
    "more", [{}, {"use_dora": True}, {"use_rslora": True}, {"target_modules": ["embed_tokens", "q_proj"]}]
)
def test_adapter_that_was_never_trained(tmp_path: Path, more: dict[str, Any]) -> None:
    """B is zero until the first step; such an adapter explains nothing."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model(), init_lora_weights=True, **more)
    with pytest.raises(UnusableModel, match="adapter: the adapter was never trained"):
        load_model(shared_micro_model(), adapter)


def test_other_adapters_that_change_nothing(tmp_path: Path) -> None:
    """Kinds without a B are refused by what they compute."""
    from peft import IA3Config, get_peft_model  # slow to import

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(str(shared_micro_model()))
    config = IA3Config(
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "down_proj"],
        feedforward_modules=["down_proj"],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's advice
        adapted = get_peft_model(model, config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    with pytest.raises(UnusableModel, match="computes the same with it and without it"):
        load_model(shared_micro_model(), tmp_path / "adapter")
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.mul_(1.5)
    adapted.save_pretrained(str(tmp_path / "trained"))
    load_model(shared_micro_model(), tmp_path / "trained")


def test_new_tokens_without_embeddings(tmp_path: Path, tied_model: Path) -> None:
    """An adapter that does not hold the embeddings of its further tokens is refused, not filled with random ones."""
    adapter = tmp_path / "adapter"
    _adapted(tied_model, adapter, resize=5, target_modules=["lm_head", "q_proj"])
    file = adapter / "adapter_model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "lora_" in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(
        UnusableModel, match=f"trained with {VOCABULARY + 5} embeddings, the model has {VOCABULARY}"
    ):
        load_model(tied_model, adapter)


def _adapter_with(folder: Path, **files: str) -> Path:
    adapter = write_adapter(folder, shared_micro_model())
    for name, content in files.items():
        (adapter / name.replace("__", ".")).write_text(content)
    return adapter


def test_tokenizer_of_the_adapter(tmp_path: Path) -> None:
    """An adapter folder's own tokenizer and template count; without a template of its own the base model's stays."""
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    own = write_adapter(tmp_path / "own", shared_micro_model())
    tokenizer = load_model(shared_micro_model()).tokenizer
    base_template = tokenizer.chat_template
    tokenizer.add_tokens(["kettle"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(str(own))
    language = load_model(shared_micro_model(), own)
    assert language.tokenizer.convert_tokens_to_ids("kettle") == VOCABULARY
    assert language.tokenizer.chat_template == template
    (own / "chat_template.jinja").unlink()
    assert load_model(shared_micro_model(), own).tokenizer.chat_template == base_template
    assert load_model(shared_micro_model()).tokenizer.chat_template == base_template


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template__jinja", "{{ 'own' }}"),
        ("tokenizer_config__json", json.dumps({"chat_template": "{{ 'own' }}"})),
        (
            "tokenizer_config__json",
            json.dumps({"chat_template": [{"name": "default", "template": "{{ 'own' }}"}]}),
        ),
    ],
)
def test_template_of_the_adapter(tmp_path: Path, name: str, content: str) -> None:
    """A template without a tokenizer beside it counts too, and is a part of the tokenizer's hash."""
    plain = write_adapter(tmp_path / "plain", shared_micro_model())
    adapter = _adapter_with(tmp_path / "adapter", **{name: content})
    found = load_model(shared_micro_model(), adapter)
    said = found.tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    assert said == "own"
    before = fingerprint(shared_micro_model(), plain)
    assert before.tokenizer_sha256 == fingerprint(shared_micro_model()).tokenizer_sha256
    assert found.fingerprint.tokenizer_sha256 != before.tokenizer_sha256
    with pytest.raises(UnusableModel, match="the chat template cannot be read"):
        load_model(shared_micro_model(), _adapter_with(tmp_path / "bad", tokenizer_config__json="["))
