"""Runs peers one after the other and keeps what each gave, so that a stopped run goes on where it was."""

import contextlib
import importlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.subject import Scored
from benchmarks.program import report
from wherefrom.atomic import write_text

EXTRA = 'pip install -c constraints.txt -e ".[engine,peers]"'
BARE = EXTRA + ", then pip install --no-deps -c constraints.txt "


@dataclass(frozen=True)
class Peer:
    """Where a method is, what it needs, and how that is installed."""

    #: Module in `benchmarks.peers`, and its function from the material to its rows.
    module: str
    function: str
    needs: tuple[str, ...] = ()
    install: str = ""

    @property
    def is_installed(self) -> bool:
        """Whether all that it needs is there."""
        return all(importlib.util.find_spec(need) for need in self.needs)

    def score(self, subject: Any) -> dict[str, Scored]:
        """Its rows by name; what libraries print goes to the error stream."""
        with contextlib.redirect_stdout(sys.stderr):
            module = importlib.import_module(f"benchmarks.peers.{self.module}")
            scored: dict[str, Scored] = getattr(module, self.function)(subject)
        return scored


@dataclass(frozen=True)
class Found:
    """Rows of all peers."""

    rows: dict[str, Scored]
    #: Rows of an earlier run.
    resumed: list[str]
    #: Peers that are not installed, with the line that installs each.
    missing: dict[str, str]


def score_all(
    peers: Mapping[str, Peer],
    names: Iterable[str],
    work: Path,
    *,
    inputs: str,
    score: Callable[[str, Path], dict[str, Scored]],
) -> Found:
    """Scores of the named peers that are installed, or that were when they were scored.

    Args:
        peers: all peers by name.
        names: those that are asked for.
        work: what is finished lies here, in a folder per peer.
        inputs: hash of all that decides the scores; scores of other inputs are never taken for these.
        score: called with a name and an empty folder for what has no scores yet.
    """
    found = Found({}, [], {})
    for name in names:
        kept = _read(work / name, inputs)
        if kept is None and not peers[name].is_installed:
            found.missing[name] = peers[name].install
            continue
        if kept is None:
            scratch = work / name / "scratch"
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            report([f"{name} ..."])
            kept = score(name, scratch)
            _keep(work / name, inputs, kept)
        else:
            found.resumed.extend(kept)
        found.rows.update(kept)
    return found


def costs_of(one: Scored) -> dict[str, Any]:
    """All of a row but its scores."""
    return {name: value for name, value in vars(one).items() if name != "scores"}


def _keep(folder: Path, inputs: str, rows: dict[str, Scored]) -> None:
    """Write scores and costs; the file of costs comes last and makes them whole."""
    np.save(folder / "scores.npy", np.stack([one.scores for one in rows.values()]), allow_pickle=False)
    costs = [{"name": name, **costs_of(one)} for name, one in rows.items()]
    write_text(folder / "costs.json", json.dumps({"inputs": inputs, "rows": costs}, indent=1) + "\n")


def _read(folder: Path, inputs: str) -> dict[str, Scored] | None:
    """What `_keep` wrote for the same inputs, or None."""
    file = folder / "costs.json"
    if not file.is_file():
        return None
    stored = json.loads(file.read_text(encoding="utf-8"))
    if stored["inputs"] != inputs:
        return None
    scores = np.load(folder / "scores.npy", allow_pickle=False)
    return {row.pop("name"): Scored(scores=scores[place], **row) for place, row in enumerate(stored["rows"])}
