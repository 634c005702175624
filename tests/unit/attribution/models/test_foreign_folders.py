"""Model folders as people have them: what cannot be used is one line that names what is at fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.tiny import (
    TINY_MODEL,
    TOKENIZER_FILES,
    VOCABULARY,
    build,
    changed_json,
    shared_corpus,
    shared_micro_model,
    write_adapter,
    write_micro_model,
)
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.signals import SignalReader
from wherefrom.errors import PermanentError, UnsafeWeights, UnusableModel

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def opt(**changes: Any) -> "transformers.OPTConfig":
    """A small OPT."""
    sizes = {
        "ffn_dim": 16,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return transformers.OPTConfig(**(SMALL | {"word_embed_proj_dim": 16} | sizes | changes))


def refused(folder: Path, adapter: Path | None = None) -> str:
    """What loading and reading a model is refused with; always one line, always an error of ours."""
    with pytest.raises(PermanentError) as raised:
        SignalReader(load_model(folder, adapter), form="forward", layers=(0, 1), similarity_layer=1)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    assert raised.value.code in {"unusable_model", "unsafe_weights"}
    return str(raised.value)


def save(folder: Path, config: "transformers.PreTrainedConfig", kind: Any = None) -> Path:
    """A folder of a random model with the tiny tokenizer."""
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config) if kind is None else kind(config)
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY_MODEL / name, folder / name)
    return folder


def test_projected_states(tmp_path: Path) -> None:
    """The shape of OPT-350m: embeddings and head are narrower than the layers between them."""
    said = refused(save(tmp_path / "opt", opt(word_embed_proj_dim=8)))
    assert "the hidden states are 8, 16 wide, but the model declares 16" in said
    usual = load_model(save(tmp_path / "usual", opt()))
    SignalReader(usual, form="forward", layers=(0, 1), similarity_layer=1)


def test_projected_states_in_a_build(tmp_path: Path) -> None:
    """The build ends in the same line, and leaves nothing behind."""
    model = save(tmp_path / "opt", opt(word_embed_proj_dim=8))
    with pytest.raises(UnusableModel, match="OPT-350m"):
        build(model, shared_corpus(40), tmp_path / "bundle")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["opt"]


def test_models_that_are_not_causal(tmp_path: Path) -> None:
    """Encoders look ahead; encoder-decoders are refused by their configuration."""
    bert = transformers.BertConfig(**SMALL, intermediate_size=16, max_position_embeddings=64)
    assert "changes the logits of the tokens before it" in refused(write_micro_model(tmp_path / "bert", bert))
    t5 = transformers.T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    assert "t5 is an encoder-decoder model" in refused(
        save(tmp_path / "t5", t5, transformers.T5ForConditionalGeneration)
    )
    bart = transformers.BartConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, is_encoder_decoder=True
    )
    folder = save(tmp_path / "bart", opt())
    (folder / "config.json").write_text(bart.to_json_string())
    assert "bart is an encoder-decoder model" in refused(folder)


def test_weights_of_another_shape(micro_model_dir: Path, tmp_path: Path) -> None:
    """The base model is blamed for its own tensors, the adapter for its."""
    changed_json(micro_model_dir / "config.json", {"intermediate_size": 40})
    said = refused(micro_model_dir)
    assert said.startswith(
        f"{micro_model_dir}: size mismatch for 9 tensors: model.layers.0.mlp.down_proj.weight is (32, 48)"
    )
    assert "but (32, 40) in config.json" in said
    wide = write_adapter(tmp_path / "wide", shared_micro_model(), target_modules=["q_proj", "embed_tokens"])
    other = write_micro_model(tmp_path / "other", opt())
    assert refused(other, wide).startswith(f"{wide}: ")


@pytest.mark.parametrize("half", [0.5, 0.0])
def test_broken_weight_files(micro_model_dir: Path, tmp_path: Path, half: float) -> None:
    """A download that was cut is named, of the model or of the adapter."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    for folder, name in ((adapter, "adapter_model.safetensors"), (micro_model_dir, "model.safetensors")):
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * half)])
        said = refused(micro_model_dir, adapter if folder is adapter else None)
        assert said.startswith(f"{folder}: ")
        assert f"{name} is not a whole safetensors file" in said


def test_sharded_weights(micro_model_dir: Path) -> None:
    """Shards load; one that is missing is named, and so is an index that says nothing."""
    model = load_model(micro_model_dir).model
    expected = model.state_dict()
    (micro_model_dir / "model.safetensors").unlink()
    model.save_pretrained(micro_model_dir, max_shard_size="60KB")
    shards = sorted(micro_model_dir.glob("model-*.safetensors"))
    assert len(shards) > 2
    loaded = load_model(micro_model_dir).model.state_dict()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    shards[1].unlink()
    said = refused(micro_model_dir)
    assert f"1 of {len(shards)} weight files are missing, such as {shards[1].name}" in said
    (micro_model_dir / "model.safetensors.index.json").write_text("[]")
    assert "does not say which file holds which tensor" in refused(micro_model_dir)


def test_weights_of_other_kinds(micro_model_dir: Path) -> None:
    """GGUF and pickle weights are named with the way out; so is a file in the place of a folder."""
    weights = micro_model_dir / "model.safetensors"
    gguf = weights.rename(micro_model_dir / "model-q4.gguf")
    assert "only model-q4.gguf; wherefrom does not read GGUF weights" in refused(micro_model_dir)
    assert "is a file; give the model's folder" in refused(gguf)
    gguf.rename(micro_model_dir / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"only pytorch_model\.bin"):
        load_model(micro_model_dir)


def test_quantised_checkpoints(micro_model_dir: Path) -> None:
    """Quantised weights are refused in a word, whatever library they would need."""
    for method in (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "gptq", "bits": 4},
    ):
        changed_json(micro_model_dir / "config.json", {"quantization_config": method})
        assert "quantised weights cannot be attributed" in refused(micro_model_dir)


@pytest.mark.parametrize(
    "content", ["[]", '"llama"', '{"model_type": 3}', '{"model_type": "llama", "hidden_size": "x"}']
)
def test_odd_configurations(micro_model_dir: Path, content: str) -> None:
    """JSON that is no configuration."""
    (micro_model_dir / "config.json").write_text(content)
    assert "config.json" in refused(micro_model_dir)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "none"}}'])
def test_odd_tokenizers(micro_model_dir: Path, content: str) -> None:
    """A tokenizer that its library cannot read."""
    (micro_model_dir / "tokenizer.json").write_text(content)
    assert "tokenizer cannot be loaded" in refused(micro_model_dir)


def test_adapter_without_readable_weights(tmp_path: Path) -> None:
    """An adapter's tensors of no use are the adapter's fault."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    file = adapter / "adapter_model.safetensors"
    save_file({f"x.{name}": weight for name, weight in load_file(file).items()}, file)
    assert refused(shared_micro_model(), adapter).startswith(f"{adapter}: ")
    content = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(content | {"peft_type": "NEW"}))
    assert refused(shared_micro_model(), adapter).startswith(f"{adapter}: the adapter cannot be merged")
