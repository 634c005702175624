"""Trains the models of the deep bank that are not there yet, one after the other, one file each.

    nice -n 19 python -m benchmarks.deep_bank.train --work DIR [--setting lora|full] [--device cuda] [--share 1/4] [--most COUNT] [--collect]

Each setting has a work folder of its own. Several processes share the work by `--share`: the second of four says `2/4`.
A stopped run loses the model that it was at; pausing the process is harmless.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.material import (
    FULL,
    LORA,
    RECIPE,
    SEEDS,
    SETTINGS,
    Material,
    Plan,
    Run,
    Setting,
    bank_sha256,
)
from benchmarks.program import report
from benchmarks.work_folder import claim_folder, save_arrays
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import atomic_folder
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import fine_tune, mean_losses, save_model, token_rows

Losses = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Measured:
    """What the finished models lose, in the order of the plan."""

    runs: tuple[Run, ...]
    #: `[M, Q]`, nats per completion token.
    queries: Losses
    #: `[M]` of each training, on whatever machine it ran.
    seconds: npt.NDArray[np.float64]


def main() -> None:
    """Train or collect."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the finished models")
    parser.add_argument("--most", type=int, help="train at most so many models")
    parser.add_argument("--collect", action="store_true", help="only bring finished models into losses.npz")
    parser.add_argument("--setting", choices=tuple(SETTINGS), default=LORA.name, help="what is trained")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument(
        "--share", type=_share, default=(1, 1), help="which of how many processes this one is, as 2/4"
    )
    arguments = parser.parse_args()
    setting: Setting = SETTINGS[arguments.setting]
    material = setting.read()
    open_folder(arguments.work, setting)
    if arguments.collect:
        collect(material.plan, arguments.work, setting)
        return
    number, of = arguments.share
    missing = missing_runs(material.plan, arguments.work, setting)[: arguments.most][number - 1 :: of]
    if missing:
        placement = Placement.resolve(arguments.device, "float32")
        _train(material, missing, arguments.work, setting=setting, placement=placement)


def _share(given: str) -> tuple[int, int]:
    number, _, of = given.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"{given!r} is no share; the second of four processes is 2/4")
    return int(number), int(of)


def ensure_adapter(work: Path) -> Path:
    """The adapter trained on all rows at the first seed, which scores are made with; trained where the folder lacks it."""
    adapter = work / "adapter"
    if not adapter.is_dir():
        model = _trained_on_all(load_model(ensure_base_model(default_cache())), LORA)
        with atomic_folder(adapter) as unfinished:
            model.save_pretrained(str(unfinished))
    return adapter


def ensure_full_model(work: Path) -> Path:
    """The same with all weights trained: the folder of a model."""
    folder = work / "model"
    if not folder.is_dir():
        language = load_model(ensure_base_model(default_cache()))
        model = _trained_on_all(language, FULL)
        with atomic_folder(folder) as unfinished:
            save_model(model, language.tokenizer, unfinished)
    return folder


def _trained_on_all(language: LanguageModel, setting: Setting) -> Any:
    rows = token_rows(language, setting.read().rows, max_tokens=RECIPE.max_tokens)
    return fine_tune(language, rows, setting.recipe, seed=SEEDS[0], progress=_say_step)


def _say_step(done: int, steps: int) -> None:
    report([f"all rows: step {done} of {steps}"])


def open_folder(work: Path, setting: Setting = LORA) -> None:
    """Make the folder, or check that it belongs to this bank.

    Raises:
        ConfigurationError: it belongs to other rows, queries, plan or recipe.
    """
    claim_folder(work, "bank.sha256", bank_sha256(setting), holds="models of other rows, queries or plan")


def missing_runs(plan: Plan, work: Path, setting: Setting) -> list[Run]:
    """Runs that neither the committed losses nor the folder hold, in order."""
    held = load_losses(plan, setting).runs if setting.losses.is_file() else ()
    return [run for run in plan.runs() if run not in held and not _file(work, run).is_file()]


def _train(
    material: Material, runs: Sequence[Run], work: Path, *, setting: Setting, placement: Placement
) -> None:
    language = load_model(ensure_base_model(default_cache()), placement=placement)
    queries = [one.row for one in material.queries]
    rows, asked = (
        token_rows(language, some, max_tokens=RECIPE.max_tokens) for some in (material.rows, queries)
    )
    for done, run in enumerate(runs, start=1):
        seconds = train_one(
            language, rows, asked, plan=material.plan, run=run, work=work, recipe=setting.recipe
        )
        report([f"{done} of {len(runs)}: {run.name}, {seconds:.0f} s"])


def train_one(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    queries: Sequence[TokenRow],
    *,
    plan: Plan,
    run: Run,
    work: Path,
    recipe: Recipe = RECIPE,
) -> float:
    """Train one model, save its losses, and return the seconds that it took."""
    started = time.monotonic()
    weights = plan.halves[run.half].astype(np.float32)
    model = fine_tune(language, rows, recipe, seed=run.seed, weights=weights)
    losses = mean_losses(model, queries)
    seconds = time.monotonic() - started
    save_arrays(_file(work, run), {"seconds": np.float64(seconds), "query_loss": losses})
    return seconds


def collect(plan: Plan, work: Path, setting: Setting) -> Measured:
    """Bring the finished models of the folder into the file of losses; what it holds already stays."""
    held: dict[Run, dict[str, Any]] = {}
    if setting.losses.is_file():
        before = load_losses(plan, setting)
        for place, run in enumerate(before.runs):
            held[run] = {
                "query_loss": before.queries[place],
                "seconds": before.seconds[place],
            }
    for run in plan.runs():
        if run not in held and _file(work, run).is_file():
            with np.load(_file(work, run), allow_pickle=False) as content:
                held[run] = {name: content[name] for name in content.files}
    runs = [run for run in plan.runs() if run in held]
    arrays: dict[str, Any] = {
        name: np.stack([held[run][name] for run in runs]) for name in ("query_loss", "seconds")
    }
    names = np.array([run.name for run in runs])
    save_arrays(setting.losses, {"bank_sha256": bank_sha256(setting), "runs": names, **arrays})
    report([f"{setting.losses.name}: {len(runs)} of {len(plan.runs())} models"])
    return load_losses(plan, setting)


def load_losses(plan: Plan, setting: Setting = LORA) -> Measured:
    """The committed losses.

    Raises:
        ConfigurationError: they belong to another bank.
    """
    with np.load(setting.losses, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    if str(arrays["bank_sha256"]) != bank_sha256(setting):
        raise ConfigurationError(f"{setting.losses} belongs to other rows, queries, plan or recipe")
    by_name = {run.name: run for run in plan.runs()}
    return Measured(
        tuple(by_name[name] for name in arrays["runs"].tolist()),
        arrays["query_loss"],
        arrays["seconds"],
    )


def _file(work: Path, run: Run) -> Path:
    return work / f"{run.name}.npz"


if __name__ == "__main__":
    main()
