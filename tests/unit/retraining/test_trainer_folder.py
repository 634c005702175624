"""`wherefrom.retraining.trainer_folder`: recipes out of folders that a training left behind, and pickles that must not run."""

import json
import os
import zipfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import torch

from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora
from wherefrom.retraining.trainer_folder import recipe_of

RUN_STATE = {"num_train_epochs": 2, "max_steps": 100, "train_batch_size": 4, "log_history": []}
ADAPTER = {
    "peft_type": "LORA",
    "r": 8,
    "lora_alpha": 16,
    "target_modules": ["v_proj", "q_proj"],
    "lora_dropout": 0.05,
}


class Schedule(StrEnum):
    """As transformers has one."""

    COSINE = "cosine"
    LINEAR = "linear"


class Arguments:
    """Stands for transformers' own, which saves itself in the same way: by its class and its attributes."""

    def __init__(self, **settings: Any) -> None:
        self.__dict__.update(settings)


def save_arguments(folder: Path, **settings: Any) -> None:
    """`training_args.bin` with the Trainer's defaults, unless others are given."""
    usual = {
        "learning_rate": 2e-4,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "weight_decay": 0.01,
        "warmup_ratio": 0.03,
        "max_grad_norm": 1.0,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "num_train_epochs": 2,
        "lr_scheduler_type": Schedule.LINEAR,
        "optim": "adamw_torch",
        "max_length": 512,
        "output_dir": "out",
        "distributed_state": {"device": torch.device("cpu")},
    }
    torch.save(Arguments(**(usual | settings)), folder / "training_args.bin")


def save(folder: Path, name: str, content: Any) -> None:
    """A JSON file."""
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


def test_a_training_of_peft_and_the_trainer(tmp_path: Path) -> None:
    """The last checkpoint's adapter and state, the folder's arguments; the number of rows tells of four devices."""
    save_arguments(tmp_path)
    for step in (50, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save(tmp_path / f"checkpoint-{step}", "adapter_config.json", ADAPTER | {"r": step // 10})
        save(tmp_path / f"checkpoint-{step}", "trainer_state.json", RUN_STATE)
    found = recipe_of(tmp_path, rows=6400)
    recipe = found.recipe
    assert (recipe.learning_rate, recipe.betas, recipe.weight_decay) == (2e-4, (0.9, 0.999), 0.01)
    assert (recipe.warmup_share, recipe.final_share, recipe.epochs, recipe.max_tokens) == (0.03, 0.0, 2, 512)
    assert recipe.batch_size == 128  # 6,400 rows twice in 100 steps
    assert recipe.lora == Lora(rank=10, alpha=16, target_modules=("q_proj", "v_proj"))
    assert recipe.bucket_batches == 1
    assert [Path(one).name for one in found.read] == [
        "adapter_config.json",
        "training_args.bin",
        "trainer_state.json",
    ]
    assert found.notes == ("The adapter was trained with dropout 0.05; a recipe trains without it.",)


def test_what_a_recipe_cannot_state_is_said(tmp_path: Path) -> None:
    """Another schedule, another optimiser, half an epoch, an adapter of another kind of scaling."""
    save_arguments(
        tmp_path, lr_scheduler_type=Schedule.COSINE, optim="adafactor", num_train_epochs=2.5, packing=True
    )
    save(tmp_path, "adapter_config.json", ADAPTER | {"use_rslora": True, "lora_dropout": 0.0})
    found = recipe_of(tmp_path)
    said = " ".join(found.notes)
    for words in ("`cosine`", "`adafactor`", "2.5 epochs", "packed", "use_rslora", "one device"):
        assert words in said
    assert (found.recipe.epochs, found.recipe.batch_size) == (3, 32)


def test_the_log_alone(tmp_path: Path) -> None:
    """Without arguments, the learning rate's course is read off the log."""
    history = [
        {"step": step, "learning_rate": rate}
        for step, rate in ((10, 1e-5), (20, 1e-4), (60, 5e-5), (100, 1e-5))
    ]
    save(
        tmp_path,
        "trainer_state.json",
        RUN_STATE | {"log_history": [*history, {"step": 100, "train_loss": 1.0}]},
    )
    recipe = recipe_of(tmp_path, rows=400).recipe
    assert (recipe.learning_rate, recipe.warmup_share, recipe.epochs, recipe.batch_size) == (1e-4, 0.2, 2, 8)
    assert recipe.final_share == pytest.approx(0.1)
    assert recipe.lora is None


class Bomb:
    """Makes a file when it is opened as pickles usually are."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    """Neither as the arguments nor among them."""
    bait = tmp_path / "made"
    save_arguments(tmp_path, callback=Bomb(bait))
    assert recipe_of(tmp_path).recipe.learning_rate == 2e-4
    torch.save(Bomb(bait), tmp_path / "training_args.bin")
    with pytest.raises(ConfigurationError, match="learning rate"):
        recipe_of(tmp_path)
    assert not bait.exists()
    torch.load(tmp_path / "training_args.bin", weights_only=False)  # the bait is a real one
    assert bait.is_dir()


def _archive(file: Path, pickled: bytes) -> None:
    """As torch.save writes one."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)


@pytest.mark.parametrize(
    "pickled",
    [
        pytest.param(b"\x80\x04})" + b"\x85" * 400_000 + b"Ns.", id="tuples in a key"),
        pytest.param(b"\x80\x04\x8f()" + b"\x85" * 400_000 + b"\x90.", id="tuples in a set"),
        pytest.param(b"\x80\x04})" + b"(h\x00\x91" * 3_000 + b"Ns.", id="frozen sets"),
        pytest.param(b"\x80\x04" + b"N0" * 100_000 + b"N.", id="steps"),
    ],
)
def test_a_pickle_that_is_too_deep_to_be_hashed(tmp_path: Path, pickled: bytes) -> None:
    """Python hashes parts of parts without a limit, and the process ends where its stack does; such a file is refused before it is opened."""
    _archive(tmp_path / "training_args.bin", pickled)
    with pytest.raises(ConfigurationError, match=r"not written by the Trainer.*nested"):
        recipe_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("training_args.bin", b"no archive", "not written by the Trainer"),
        ("trainer_state.json", b"{", "not JSON"),
        ("trainer_state.json", b"[]", "an object was expected"),
        ("trainer_state.json", b'{"log_history": 3}', "the learning rate stands in none"),
        ("adapter_config.json", b'{"peft_type": "IA3"}', "neither training_args.bin nor trainer_state.json"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    """One line that names the file."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match=words):
        recipe_of(tmp_path)


def test_an_adapter_of_another_kind(tmp_path: Path) -> None:
    """A recipe trains LoRA or all weights."""
    save_arguments(tmp_path)
    save(tmp_path, "adapter_config.json", {"peft_type": "IA3"})
    with pytest.raises(ConfigurationError, match="of the kind IA3"):
        recipe_of(tmp_path)
