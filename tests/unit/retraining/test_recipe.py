from pathlib import Path

import pytest

from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe, read_recipe, write_recipe


def test_a_written_recipe_reads_back_the_same(tmp_path: Path) -> None:
    """JSON keeps every field, the adapter's too."""
    recipe = Recipe(learning_rate=1e-4, lora=Lora(rank=4, alpha=8, target_modules=("q_proj", "v_proj")))
    write_recipe(tmp_path / "recipe.json", recipe)
    assert read_recipe(tmp_path / "recipe.json") == recipe


def test_the_learning_rate_rises_then_falls_to_its_final_share() -> None:
    """Ten of a hundred steps rise to 1, the last step has the final share."""
    recipe = Recipe(warmup_share=0.1, final_share=0.05)
    factors = [recipe.factor(step, 100) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == pytest.approx(1.0)
    assert max(factors) == pytest.approx(1.0)
    assert factors[99] == pytest.approx(0.05)
    assert factors[9:] == sorted(factors[9:], reverse=True)


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_a_single_step_has_a_learning_rate_at_either_end_of_the_warm_up(warmup: float) -> None:
    """No share of warm-up divides by zero."""
    assert Recipe(warmup_share=warmup).factor(0, 1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"learning_rate": 0}', "learning_rate"),
        ('{"learning_rat": 1e-3}', "learning_rat"),
        ('{"betas": [0.9, 1.0]}', "betas.1"),
        ('{"lora": {"rank": 0}}', "lora.rank"),
        ("{", "the file"),
    ],
)
def test_a_recipe_that_cannot_be_used_names_file_and_field(tmp_path: Path, content: str, named: str) -> None:
    """The text says where, and lists what is known."""
    file = tmp_path / "recipe.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=rf"recipe\.json: {named}: .*known fields: learning_rate"):
        read_recipe(file)


def test_a_missing_recipe_is_a_configuration_error(tmp_path: Path) -> None:
    """No traceback of the file system."""
    with pytest.raises(ConfigurationError, match="the recipe cannot be read"):
        read_recipe(tmp_path / "none.json")
