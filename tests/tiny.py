"""Small models and bundles for tests of the engine: nothing is downloaded, what is built is built once per process.

`TINY` is the committed model of 0.7 million parameters, trained on its own corpus. A *micro* model has random weights in the shape
of any architecture and borrows the tiny model's tokenizer, so that a bundle of it takes a fraction of a second.
"""

import functools
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import Manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.factors import FactorStore
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow

torch.set_num_threads(1)  # small models gain nothing from more, and two cores are shared by many

CHECKOUT = Path(__file__).parents[1]
TINY = CHECKOUT / "demo" / "tiny"
TINY_MODEL = TINY / "model"
#: Rows of the tiny corpus in the shared bundle.
TINY_ROWS = 160
VOCABULARY = int(json.loads((TINY_MODEL / "config.json").read_text(encoding="utf-8"))["vocab_size"])
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

Row = dict[str, Any]


def tiny_rows(count: int | None = None) -> list[Row]:
    """The first rows of the tiny corpus."""
    lines = (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def tiny_queries(count: int | None = None) -> list[Row]:
    """The first flagged outputs of the tiny model."""
    lines = (TINY / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[:count]]


def write_jsonl(file: Path, rows: Sequence[Any]) -> Path:
    """A JSONL file; strings are written as they are, bytes too."""
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode("utf-8")
        for row in rows
    ]
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    return file


def micro_config(**changes: Any) -> "transformers.LlamaConfig":
    """A Llama of three narrow layers over the tiny tokenizer's vocabulary."""
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    return transformers.LlamaConfig(**(settings | changes))


def write_micro_model(
    folder: Path, config: "transformers.PreTrainedConfig | None" = None, *, seed: int = 1
) -> Path:
    """Save a model with random weights and the tiny model's tokenizer."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config or micro_config())
    model.generation_config.eos_token_id = 1
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:  # the usual initialisation is so small that all logits are alike
                weight.mul_(4.0)
    model.save_pretrained(folder)
    _copy_tokenizer(folder)
    return folder


def _copy_tokenizer(folder: Path) -> None:
    for name in TOKENIZER_FILES:
        shutil.copy(TINY_MODEL / name, folder / name)


def write_adapter(folder: Path, model_dir: Path, *, seed: int = 5, **more: Any) -> Path:
    """Save a LoRA adapter with random weights for a model; `more` is its configuration beyond the plain one."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_pretrained(str(model_dir), local_files_only=True)
    plain = {"r": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    config = LoraConfig(task_type="CAUSAL_LM", **{**plain, **more})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft's own use of transformers
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers`")
        get_peft_model(model, config).save_pretrained(str(folder))
    return folder


def write_encoder(folder: Path, *, layers: int = 2, positions: int = 64) -> Path:
    """Save a small sentence encoder with random weights and the tiny model's tokenizer."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=positions,
        pad_token_id=0,
    )
    transformers.BertModel(config).save_pretrained(str(folder))
    _copy_tokenizer(folder)
    return folder


def quiet(stage: str, done: int, total: int) -> None:
    """No progress."""


def build(
    model_dir: Path,
    corpus: Path,
    out: Path,
    *,
    adapter: Path | None = None,
    start: Path | None = None,
    **options: Any,
) -> Manifest:
    """Build a bundle; random models have learned nothing, so that is not checked unless asked for."""
    return build_bundle(
        folders=ModelFolders(model_dir, adapter, start),
        corpus_path=corpus,
        out=out,
        options=BuildOptions(**({"check_learning": False} | options)),
        progress=quiet,
    )


@functools.cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    """One folder per process for what tests share; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="wherefrom-tests-")


def _once(name: str, make: Callable[[Path], object]) -> Path:
    path = Path(_kept().name) / name
    if not path.exists():
        make(path)
    return path


def shared_micro_model() -> Path:
    """A micro model that all tests share; nobody writes to it."""
    return _once("micro-model", write_micro_model)


def shared_corpus(count: int) -> Path:
    """A JSONL file of the first rows of the tiny corpus."""
    return _once(f"corpus-{count}.jsonl", lambda file: write_jsonl(file, tiny_rows(count)))


def shared_bundle(form: str = "forward") -> Path:
    """A bundle of the tiny model over its first training examples."""
    return _once(
        f"tiny-{form}",
        lambda out: build(TINY_MODEL, shared_corpus(TINY_ROWS), out, form=form, model_name="tiny@1"),
    )


def shared_micro_bundle(form: str = "forward") -> Path:
    """A bundle of the micro model over 40 training examples."""
    return _once(f"micro-{form}", lambda out: build(shared_micro_model(), shared_corpus(40), out, form=form))


@functools.cache
def opened(form: str = "forward", *, exact_search: bool = False) -> Bundle:
    """The tiny model's bundle, opened."""
    return open_bundle(shared_bundle(form), ModelFolders(TINY_MODEL), exact_search=exact_search)


def token_factors(bundle: Bundle) -> FactorStore:
    """The factors of every token, which bundles of the forms `forward` and `activation` hold."""
    return FactorStore(bundle.path / "features")


@functools.cache
def tiny_language() -> LanguageModel:
    """The tiny model, loaded."""
    return load_model(TINY_MODEL)


@functools.cache
def micro_language() -> LanguageModel:
    """The micro model, loaded."""
    return load_model(shared_micro_model())


def random_row(prompt: int, completion: int, *, seed: int = 0, shared: Sequence[int] = ()) -> TokenRow:
    """A row of random tokens behind a shared beginning; every completion token is explained."""
    generator = torch.Generator().manual_seed(1000 * prompt + 10 * completion + seed)
    drawn = torch.randint(5, VOCABULARY, (prompt + completion - len(shared),), generator=generator).tolist()
    return TokenRow((*shared, *drawn), prompt, (True,) * completion)


def changed_json(file: Path, changes: Mapping[str, Any]) -> None:
    """Set keys of a JSON file."""
    file.write_text(
        json.dumps(json.loads(file.read_text(encoding="utf-8")) | dict(changes)), encoding="utf-8"
    )


@pytest.fixture
def tiny_model_dir() -> Path:
    """The committed tiny model."""
    return TINY_MODEL


@pytest.fixture
def tiny_bundle() -> Path:
    """A finished bundle of the tiny model, form `forward`; not to be changed (copy it to change it)."""
    return shared_bundle()


@pytest.fixture
def micro_model_dir(tmp_path: Path) -> Path:
    """A copy of the micro model that a test may change."""
    return Path(shutil.copytree(shared_micro_model(), tmp_path / "model"))


@pytest.fixture
def micro_bundle(tmp_path: Path) -> Path:
    """A copy of the micro model's bundle that a test may change."""
    return Path(shutil.copytree(shared_micro_bundle(), tmp_path / "bundle"))
