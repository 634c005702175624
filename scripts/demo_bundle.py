"""The demo's bundle, made by the commands that every user runs: built, then calibrated on outputs whose cause is not in the corpus."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scripts.demo_outputs import DemoOutput
from scripts.demo_report import lowest_sources
from scripts.jsonl import write_rows
from wherefrom.attribution.bundles.model_location import note_path

Say = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """The audited model, and what it was fine-tuned on."""

    name: str
    base: Path
    adapter: Path
    #: Folder with the corpus and the controls.
    story: Path

    @property
    def options(self) -> list[str]:
        """The options of the commands that need the model."""
        return ["--model", str(self.base), "--adapter", str(self.adapter)]


def build(model: Model, home: Path, *, say: Say) -> Path:
    """Build and calibrate a new bundle below `home`, and return its folder.

    Args:
        model: what the bundle is of.
        home: cache folder; the bundle comes to `bundles/NAME` below it.
        say: hears what is being done.
    """
    built, calibrated, bundles = home / "half-way", home / "calibrated", home / "bundles"
    for folder in (built, calibrated):
        shutil.rmtree(folder, ignore_errors=True)
    bundles.mkdir(parents=True, exist_ok=True)
    corpus, controls = model.story / "corpus.jsonl", model.story / "controls.jsonl"
    say(
        "Building the bundle: wherefrom build --model BASE --adapter demo/adapter --corpus demo/story/corpus.jsonl --no-learning-check --no-final --out BUNDLE"
    )
    files = ("--corpus", str(corpus), "--out", str(built))
    # the outputs have just shown that this adapter has learned; asking again takes half a minute, and the second pass over the model minutes
    quick = ("--no-learning-check", "--no-final")
    _wherefrom("build", *quick, "--model-name", model.name, *files, *model.options)
    say(
        "Calibrating it: wherefrom calibrate --bundle BUNDLE --controls demo/story/controls.jsonl --out CALIBRATED"
    )
    beside = ("--bundle", str(built), "--controls", str(controls), "--out", str(calibrated))
    _wherefrom("calibrate", *beside, *model.options)
    name = json.loads((calibrated / "manifest.json").read_text(encoding="utf-8"))["name"]
    home_of_bundle = bundles / str(name)
    calibrated.rename(home_of_bundle)
    shutil.rmtree(built)
    for folder in (built, calibrated):
        note_path(folder).unlink(missing_ok=True)  # the models folder of the demo says where the model is
    say(f"Built bundle {name}.")
    return home_of_bundle


class Opponents:
    """The rows with the lowest influence on each output, of the whole corpus and before any rule of display.

    Found by `wherefrom attribute --scores` while the service audits the same outputs, and kept beside the bundle.
    """

    def __init__(self, model: Model, bundle: Path, outputs: Sequence[DemoOutput], *, work: Path) -> None:
        """Begin to score, unless the scores are there.

        Args:
            model: what the bundle is of.
            bundle: folder of the bundle.
            outputs: the flagged outputs with a true source.
            work: folder for the files of this run.
        """
        self._probes = [one.probe for one in outputs]
        rows = [{"id": one.probe, "messages": one.messages, "completion": one.completion} for one in outputs]
        key = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:12]
        self._scores = bundle.parent.parent / f"scores-{bundle.name}-{key}.npy"
        self._running: subprocess.Popen[bytes] | None = None
        if rows and not self._scores.is_file():
            asked = work / "flagged.jsonl"
            write_rows(asked, rows)
            files = ("--bundle", str(bundle), "--input", str(asked), "--scores", str(self._scores))
            self._running = subprocess.Popen(
                _command("attribute", *files, *model.options, "--json"), stdout=subprocess.DEVNULL
            )

    def sources(self, of_rows: Sequence[str]) -> Mapping[str, list[str]]:
        """By probe, the sources of its lowest rows; waits until they are scored.

        Args:
            of_rows: source of each row of the corpus.

        Raises:
            SystemExit: the command failed.
        """
        if self._running is not None and self._running.wait():
            raise SystemExit("The flagged outputs could not be scored; the lines above say why.")
        if not self._probes:
            return {}
        scores = np.load(self._scores, allow_pickle=False)
        return dict(zip(self._probes, lowest_sources(scores, of_rows), strict=True))


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wherefrom.cli", *arguments]


def _wherefrom(*arguments: str) -> None:
    subprocess.run(_command(*arguments), check=True)
