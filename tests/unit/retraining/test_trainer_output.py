"""Recipes out of folders that PEFT and the Trainer of transformers really wrote, and the trainings that such a recipe starts."""

import json
import pickle
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny import micro_language, random_row, shared_micro_model
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.trainer_folder import recipe_of
from wherefrom.retraining.training import fine_tune, mean_losses

ROWS = 21


def _trained(folder: Path, *, adapters: dict[str, dict[str, Any]], **settings: Any) -> Path:
    """What the Trainer leaves behind; adapters by name, the first one trained."""
    import transformers
    from peft import LoraConfig, get_peft_model

    usual = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 3e-4, "save_steps": 4}
    rows = [
        {"input_ids": torch.tensor(row.ids), "labels": torch.tensor(row.ids)}
        for row in (random_row(4, 4, seed=number) for number in range(ROWS))
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            str(shared_micro_model()), local_files_only=True
        )
        for number, (name, config) in enumerate(adapters.items()):
            lora = LoraConfig(task_type="CAUSAL_LM", **config)
            if number:
                model.add_adapter(name, lora)
            else:
                model = get_peft_model(model, lora, adapter_name=name)
        arguments = transformers.TrainingArguments(
            output_dir=str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **(usual | settings)
        )
        transformers.Trainer(model=model, args=arguments, train_dataset=rows).train()
    return folder


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two adapters in one model, of which `default` was trained."""
    adapters = {
        "default": {
            "r": 4,
            "lora_alpha": 8,
            "use_rslora": True,
            "target_modules": ["q_proj", "v_proj"],
            "modules_to_save": ["lm_head"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 2},
        },
        "poet": {
            "r": 2,
            "target_modules": ["up_proj"],
            "layers_to_transform": 0,
            "init_lora_weights": "gaussian",
        },
    }
    return _trained(tmp_path_factory.mktemp("trainer"), adapters=adapters, warmup_steps=3)


def test_the_recipe_of_a_real_folder(output: Path) -> None:
    """Steps of warm-up become a share, and all of the adapter that a recipe can state is in it."""
    found = recipe_of(output, rows=ROWS)
    recipe = found.recipe
    assert (recipe.learning_rate, recipe.epochs, recipe.batch_size) == (3e-4, 2, 4)
    assert recipe.steps(ROWS) == 12
    assert (recipe.warmup_share, recipe.final_share) == (3 / 12, 0.0)
    assert recipe.lora == Lora(
        rank=4,
        alpha=8,
        target_modules=("q_proj", "v_proj"),
        rslora=True,
        modules_to_save=("lm_head",),
        rank_pattern={"layers.0.self_attn.q_proj": 2},
    )
    said = " ".join(found.notes)
    assert "cannot state" not in said
    assert "default, poet; the recipe is that of default" in said


def test_an_adapter_is_chosen_by_its_name(output: Path) -> None:
    """One of several, whose one block has the number 0; an unknown name lists those that are there."""
    found = recipe_of(output, rows=ROWS, adapter="poet")
    assert found.recipe.lora == Lora(rank=2, alpha=8, target_modules=("up_proj",), layers_to_transform=(0,))
    assert "uses init_lora_weights, which a recipe cannot state" in " ".join(found.notes)
    with pytest.raises(
        ConfigurationError, match="no adapter 'cook'; choose one of default, poet with --adapter"
    ):
        recipe_of(output, adapter="cook")


def test_several_adapters_and_none_is_the_first(output: Path, tmp_path: Path) -> None:
    """Nothing is guessed: the names are listed. A single one is taken whatever its name."""
    shutil.copytree(output / "checkpoint-12", tmp_path / "out")
    (tmp_path / "out" / "default").mkdir()
    (tmp_path / "out" / "adapter_config.json").rename(tmp_path / "out" / "default" / "adapter_config.json")
    (tmp_path / "out" / "default").rename(tmp_path / "out" / "cook")
    with pytest.raises(ConfigurationError, match="several adapters; choose one of cook, poet"):
        recipe_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "poet")
    lora = recipe_of(tmp_path / "out").recipe.lora
    assert lora is not None
    assert lora.rank == 4


def test_without_the_arguments_the_log_tells_the_rate(output: Path, tmp_path: Path) -> None:
    """`training_args.bin` is often not published."""
    shutil.copytree(output / "checkpoint-12", tmp_path / "out")
    (tmp_path / "out" / "training_args.bin").unlink()
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text(encoding="utf-8"))
    state["log_history"] = [{"step": 3, "learning_rate": 3e-4}, {"step": 12, "learning_rate": 3e-5}]
    (tmp_path / "out" / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    found = recipe_of(tmp_path / "out", rows=ROWS)
    assert (found.recipe.learning_rate, found.recipe.epochs, found.recipe.batch_size) == (3e-4, 2, 4)
    assert "read off the log" in " ".join(found.notes)


def test_a_number_of_steps_counts_before_the_epochs(tmp_path: Path) -> None:
    """Nine steps through 21 rows are one and a half epochs, whatever `num_train_epochs` says; a constant rate does not rise."""
    folder = _trained(
        tmp_path, adapters={}, max_steps=9, lr_scheduler_type="constant", warmup_steps=0.5, save_steps=9
    )
    found = recipe_of(folder, rows=ROWS)
    assert (found.recipe.epochs, found.recipe.batch_size, found.recipe.lora) == (2, 4, None)
    assert (found.recipe.warmup_share, found.recipe.final_share) == (0.0, 1.0)
    assert "ran 1.5 epochs" in " ".join(found.notes)


def test_an_earlier_state_says_so(output: Path) -> None:
    """A checkpoint half-way tells of the whole training."""
    found = recipe_of(output / "checkpoint-4", rows=ROWS)
    assert found.recipe.epochs == 2
    assert "step 4 of 12" in " ".join(found.notes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02]]s.",
        b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.",  # os.system("ls")
        b"\x80\x02X\x01\x00\x00\x00a\x94h\x00h\x00\x82\x01.",  # an extension's code
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a number of 2 GiB
        b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        b"\x80\x02}X\x0d\x00\x00\x00learning_rateG\x7f\xf8\x00\x00\x00\x00\x00\x00s.",
        pickle.dumps({"learning_rate": 10**400}),
    ],
)
def test_a_pickle_that_means_harm_is_one_line(output: Path, tmp_path: Path, content: bytes) -> None:
    """Whatever stands in it, the command ends with the name of the file, and nothing has run."""
    shutil.copytree(output / "checkpoint-12", tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "training_args.bin", "w") as archive:
        archive.writestr("out/data.pkl", content)
    with pytest.raises(ConfigurationError, match=r"training_args\.bin|learning rate"):
        recipe_of(tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"rslora": True},
        {"dora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 3}},
        {"layers_to_transform": (1,), "target_modules": (r"q_proj", "up_proj")},
        {"target_modules": (r".*layers\.2\..*(gate|up)_proj",)},
        {"modules_to_save": ("lm_head",)},
    ],
)
def test_a_refit_trains_the_adapter_that_the_recipe_states(settings: dict[str, Any]) -> None:
    """PEFT's own configuration, scale and ranks; two refits are the same numbers, and another adapter than the plain one."""
    plain = Lora(rank=4, alpha=8, target_modules=("q_proj", "up_proj"))
    rows = [random_row(4, 4, seed=number) for number in range(8)]
    losses = []
    for lora in (plain, plain.model_copy(update=settings), plain.model_copy(update=settings)):
        recipe = Recipe(learning_rate=1e-2, batch_size=4, epochs=2, lora=lora)
        model = fine_tune(micro_language(), rows, recipe, seed=0)
        losses.append(mean_losses(model, rows))
    assert np.array_equal(losses[1], losses[2])
    assert not np.array_equal(losses[0], losses[1])
    config = model.peft_config["default"]
    assert (config.use_rslora, config.use_dora) == (lora.rslora, lora.dora)
    layers = {name: one for name, one in model.named_modules() if hasattr(one, "lora_A") and one.lora_A}
    numbers = {name.split(".layers.")[1].split(".")[0] for name in layers}
    wanted = {"layers_to_transform": {"1"}}.get(next(iter(settings)), {"0", "1", "2"})
    assert numbers == ({"2"} if len(lora.target_modules) == 1 else wanted)
    first = next(one for name, one in layers.items() if "q_proj" in name or "gate" in name)
    rank = lora.rank_pattern.get("q_proj", 4)
    scale = lora.alpha_pattern.get("q_proj", 8) / (rank**0.5 if lora.rslora else rank)
    assert (first.r["default"], first.scaling["default"]) == (rank, pytest.approx(scale))
    trained = {name for name, one in model.named_parameters() if "modules_to_save" in name}
    assert bool(trained) == bool(lora.modules_to_save)


def test_finished_retrainings_of_an_earlier_release_stay_valid() -> None:
    """The hash of a recipe without the newer fields is the one that folders of retrainings hold."""
    assert Recipe(lora=Lora(rank=8)).sha256() == (
        "0a7dfd0e90fe50ee85cddff94722eceaa1a5bd1047d63d801f6df3a5319732f2"
    )
    assert Recipe(lora=Lora(rank=8, dora=True)).sha256() != Recipe(lora=Lora(rank=8)).sha256()
