"""`wherefrom recipe`: from the folder of a training to a file that `wherefrom bank` reads."""

from collections.abc import Callable
from pathlib import Path

from tests.unit.cli.conftest import Run
from tests.unit.retraining.test_trainer_folder import save_arguments
from wherefrom.retraining.recipe import read_recipe


def test_the_command(run: Callable[..., Run], tmp_path: Path) -> None:
    """It writes a file that `bank` reads, says what to check, and overwrites nothing."""
    save_arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=1)
    out = tmp_path / "recipe.json"
    done = run("recipe", str(tmp_path), "--out", str(out))
    assert done.code == 0, done.err
    assert "Check: Without trainer_state.json the batch size is that of one device; check it." in done.out
    assert read_recipe(out).batch_size == 2
    again = run("recipe", str(tmp_path), "--out", str(out))
    assert (again.code, "already exists" in again.err) == (2, True)
