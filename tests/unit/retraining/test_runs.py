from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.tiny import micro_language
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.runs import RunFolder
from wherefrom.retraining.training import fine_tune, mean_losses

GROUPS = [(), (3,), (5, 17)]


def _folder(path: Path, rows: list[TokenRow], recipe: Recipe, **more: bool) -> RunFolder:
    return RunFolder(path, language=micro_language(), rows=rows, recipe=recipe, **more)


def test_a_run_that_branches_off_equals_one_from_the_start(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], recipe: Recipe
) -> None:
    """Sharing the base run's first steps changes no byte."""
    found = _folder(tmp_path, rows, recipe).losses(queries, GROUPS, seeds=(0, 1))
    assert found.losses.shape == (2, 3, 4)
    assert found.trained == 6
    for seed in (0, 1):
        for place, group in enumerate(GROUPS[seed:], start=seed):
            weights = np.ones(len(rows), dtype=np.float32)
            weights[list(group)] = 0.0
            model = fine_tune(micro_language(), rows, recipe, seed=seed, weights=weights)
            assert np.array_equal(found.losses[seed, place].astype(np.float32), mean_losses(model, queries))


def test_a_stopped_measurement_goes_on_with_the_same_bytes(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], recipe: Recipe
) -> None:
    """What is there is not trained again; what was lost comes back as it was."""
    first = _folder(tmp_path, rows, recipe, keep_models=False).losses(queries, GROUPS, seeds=(0,))
    lost = min(tmp_path.glob("seed0-*.npz"))
    lost.unlink()
    (tmp_path / "seed0-half.npz.tmp").write_bytes(b"half")
    again = _folder(tmp_path, rows, recipe, keep_models=False).losses(queries, GROUPS, seeds=(0,))
    assert again.trained == 1
    assert np.array_equal(first.losses, again.losses)
    assert lost.is_file()


@pytest.mark.parametrize("adapter", [False, True])
def test_new_queries_are_measured_with_the_kept_weights(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], recipe: Recipe, *, adapter: bool
) -> None:
    """Base and control runs serve later queries without training; full fine-tunes and adapters alike."""
    chosen = recipe.model_copy(update={"lora": Lora(rank=2, target_modules=("q_proj",)) if adapter else None})
    runs = _folder(tmp_path, rows, chosen)
    runs.losses(queries[:2], GROUPS, seeds=(0,))
    later = runs.losses(queries, GROUPS, seeds=(0,))
    fresh = _folder(tmp_path / "fresh", rows, chosen).losses(queries, GROUPS, seeds=(0,))
    assert later.trained == 0
    np.testing.assert_allclose(later.losses, fresh.losses, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"dora": True}, {"modules_to_save": ("lm_head",)}, {"rslora": True}])
def test_kept_weights_of_every_kind_of_adapter_serve_later_queries(
    tmp_path: Path,
    rows: list[TokenRow],
    queries: list[TokenRow],
    *,
    recipe: Recipe,
    settings: dict[str, Any],
) -> None:
    """All that was trained is kept, and no more than that."""
    lora = Lora(rank=2, target_modules=("q_proj",)).model_copy(update=settings)
    runs = _folder(tmp_path, rows, recipe.model_copy(update={"lora": lora}))
    first = runs.losses(queries, [(), (3,)], seeds=(0,))
    for file in tmp_path.glob("*.npz"):
        with np.load(file) as content:
            arrays = dict(content)
        np.savez(file, **(arrays | {"queries": arrays["queries"][:1], "losses": arrays["losses"][:1]}))
    later = runs.losses(queries, [(), (3,)], seeds=(0,))
    assert later.trained == 0
    np.testing.assert_allclose(later.losses, first.losses, rtol=1e-5)
    names = set(load_file(tmp_path / "seed0-base.safetensors"))
    assert all("lora_" in name or "modules_to_save" in name for name in names)


def test_a_folder_of_another_recipe_or_corpus_is_refused(
    tmp_path: Path, rows: list[TokenRow], recipe: Recipe
) -> None:
    """The text names what differs."""
    _folder(tmp_path, rows, recipe)
    with pytest.raises(ConfigurationError, match="another recipe;"):
        _folder(tmp_path, rows, recipe.model_copy(update={"epochs": 3}))
    with pytest.raises(ConfigurationError, match="another corpus;"):
        _folder(tmp_path, rows[:-1], recipe)


def test_groups_outside_the_corpus_and_whole_corpora_are_refused(
    tmp_path: Path, rows: list[TokenRow], queries: list[TokenRow], recipe: Recipe
) -> None:
    """Before anything is trained."""
    runs = _folder(tmp_path, rows, recipe)
    with pytest.raises(ConfigurationError, match="rows 0 to 23"):
        runs.losses(queries, [(24,)], seeds=(0,))
    with pytest.raises(ConfigurationError, match="all 24 rows"):
        runs.losses(queries, [range(24)], seeds=(0,))
    assert not list(tmp_path.glob("*.npz"))
