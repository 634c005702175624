"""What is known of a recipe before anything is trained."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.retraining.preflight import TRAININGS, check_recipe, expected_cost
from wherefrom.retraining.recipe import Lora, Recipe

ADAPTER = {
    "peft_type": "LORA",
    "r": 16,
    "lora_alpha": 32,
    "use_rslora": True,
    "target_modules": ["q_proj", "v_proj"],
}
FITTING = Lora(rank=16, alpha=32, rslora=True, target_modules=("self_attn.v_proj", "q_proj"))


def _manifest(**model: Any) -> Any:
    """As much of a manifest as is looked at."""
    return SimpleNamespace(
        name="b-1",
        model=SimpleNamespace(parameters=1_000_000, **model),
        corpus=SimpleNamespace(tokens=50_000),
    )


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder that holds a model."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}", encoding="utf-8")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder that holds an adapter."""
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER), encoding="utf-8")
    return tmp_path / "adapter"


def _check(lora: Lora | None, base: Path, adapter: Path | None) -> None:
    check_recipe(Recipe(lora=lora), _manifest(), base=base, adapter=adapter)


def test_a_fitting_recipe_passes(base: Path, adapter: Path) -> None:
    """Layers by short or long names; a word for all layers cannot be compared; whole weights need no adapter."""
    _check(FITTING, base, adapter)
    _check(FITTING.model_copy(update={"target_modules": ("all-linear",)}), base, adapter)
    _check(None, base, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rank": 8}, "lora.rank is 8, the adapter's is 16"),
        ({"alpha": 16, "rslora": False}, "lora.alpha is 16, the adapter's is 32; lora.rslora is False"),
        ({"target_modules": ("q_proj",)}, "lora.target_modules is q_proj, the adapter's is q_proj, v_proj"),
        ({"dora": True}, "lora.dora"),
        ({"modules_to_save": ("lm_head",)}, "lora.modules_to_save is lm_head, the adapter's is empty"),
    ],
)
def test_another_adapter_is_named(base: Path, adapter: Path, changes: dict[str, Any], words: str) -> None:
    """The text says what the recipe states and what the adapter is."""
    with pytest.raises(ConfigurationError, match=words):
        _check(FITTING.model_copy(update=changes), base, adapter)


def test_what_is_missing_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    """A recipe without an adapter, a base folder without a model, an adapter's folder without settings or of another kind."""
    with pytest.raises(
        ConfigurationError, match="trains all weights, and bundle b-1 explains a LoRA adapter"
    ):
        _check(None, base, adapter)
    with pytest.raises(ConfigurationError, match="WHEREFROM_BASE_MODEL_DIR"):
        _check(None, tmp_path / "nowhere", None)
    (adapter / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match="of the kind IA3"):
        _check(FITTING, base, adapter)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(ConfigurationError, match="cannot be read"):
        _check(FITTING, base, adapter)


def test_the_cost_is_told_by_size_then_by_finished_trainings(tmp_path: Path) -> None:
    """An adapter takes less time and memory than whole weights; what was timed counts before any estimate."""
    plain: dict[str, Any] = {"runs": tmp_path, "threads": 2}
    full = expected_cost(Recipe(epochs=2), _manifest(), **plain)
    lora = expected_cost(Recipe(epochs=2, lora=FITTING), _manifest(), **plain)
    assert (full.trainings, full.tokens, full.timed) == (TRAININGS, 100_000, False)
    assert lora.seconds < full.seconds
    assert lora.memory_bytes < full.memory_bytes
    for number, seconds in enumerate((2.0, 4.0, 100.0)):
        np.savez(tmp_path / f"seed{number}-base.npz", seconds=np.float64(seconds))
    (tmp_path / "seed9-half.npz").write_bytes(b"half")
    timed = expected_cost(Recipe(), _manifest(), **plain)
    assert (timed.timed, timed.seconds) == (True, 4.0 * TRAININGS)
