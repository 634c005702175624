"""The storm over wherefrom's own engine, with the committed tiny model: attribution is real, and so is the time that a model takes to load."""

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.chaos.outputs import MODEL
from benchmarks.chaos.storm import Stage, Weather
from benchmarks.chaos.storm import storm as raise_storm
from db.session import Database
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.settings import Settings
from worker.bundles import add_bundle

TINY = Path(__file__).parents[2] / "demo" / "tiny"


def storm(weather: Weather, folder: Path) -> dict[str, Any]:
    """Build a bundle over the tiny model's corpus, then raise the storm."""
    built = folder / "built"
    build_bundle(
        folders=ModelFolders(TINY / "model"),
        corpus_path=TINY / "corpus.jsonl",
        out=built,
        options=BuildOptions(form="forward", model_name=MODEL),
        progress=_quiet,
    )
    settings = {"torch_threads": "1", "models_dir": str(TINY)}
    stage = Stage(partial(_register, folder=folder, built=built), settings, MODEL)
    return raise_storm(weather, folder, stage=stage)


def _register(database: Database, *, folder: Path, built: Path) -> None:
    settings = Settings(bundles_dir=folder / "bundles", state_dir=folder / "state")
    add_bundle(database, settings, built, activate=True)


def _quiet(stage: str, done: int, total: int) -> None:
    """No progress."""
