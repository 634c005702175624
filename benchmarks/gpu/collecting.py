"""Brings what `benchmarks.gpu.experiments` has finished into the committed files.

python -m benchmarks.gpu.collecting --work DIR
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.large import LOSSES
from benchmarks.deep_bank.material import SEEDS, bank_sha256, read_lora_material
from benchmarks.gpu.experiments import (
    ARM_SEEDS,
    COMPARED,
    FIRST_SEEDS,
    PAIRS,
    ROW_SEEDS,
    SOURCE_SEEDS,
    finished,
    new_halves,
)
from benchmarks.gpu.story_plan import load_plan
from benchmarks.gpu.story_report import ARMS, FIRSTS
from benchmarks.program import command, run
from benchmarks.work_folder import save_arrays
from demo.making.story_rules import rule_of
from wherefrom.atomic import write_json

Losses = npt.NDArray[np.float32]


def main() -> None:
    """Collect."""
    parser = command(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished models' losses")
    run(parser, _collect, table=lambda result: [f"{name}: {one}" for name, one in result.items()])


def _collect(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    return deep(arguments.work) | story(arguments.work)


def models(work: Path, name: str) -> Losses:
    """Losses of a part's finished models in their order, `[M, Q]`."""
    return np.concatenate(list(finished(work, name).values()))


def whole_seeds(losses: Losses, each: int, most: int) -> Losses:
    """Losses `[S, each, Q]` of the seeds that are finished; models come seed by seed."""
    seeds = min(len(losses) // each, most)
    return losses[: seeds * each].reshape(seeds, each, -1)


def deep(work: Path) -> dict[str, Any]:
    """The deep bank's file."""
    material = read_lora_material()
    halves, size = models(work, "halves"), len(material.rows)
    by_seed = halves[COMPARED:].reshape(PAIRS, len(SEEDS), 2, -1)
    arrays: dict[str, Any] = {
        "bank_sha256": bank_sha256(),
        "num_rows": np.int64(size),
        "kept": np.packbits(new_halves(size), axis=1),
        "compared": halves[:COMPARED],
        "halves": by_seed.transpose(1, 0, 2, 3).reshape(len(SEEDS), 2 * PAIRS, -1),
        "rows": whole_seeds(models(work, "rows"), 1 + size, len(ROW_SEEDS)),
        "sources": whole_seeds(
            models(work, "sources"), len({row.source for row in material.rows}), len(SOURCE_SEEDS)
        ),
    }
    save_arrays(LOSSES, arrays)
    return {name: arrays[name].shape for name in ("halves", "rows", "sources")}


def story(work: Path) -> dict[str, Any]:
    """The demo's files."""
    plan = load_plan()
    hard = [one for one in plan.asked if one.kind == "hard"]
    answers: list[list[str]] = []
    for file in sorted(work.glob("arms-*.json")):
        answers += json.loads(file.read_text(encoding="utf-8"))
    shown = [
        [rule_of(one.source).matches(text) for one, text in zip(hard, own, strict=True)] for own in answers
    ]
    arms = {
        name: ["".join("01"[hit] for hit in own) for own in shown[at * len(ARM_SEEDS) :][: len(ARM_SEEDS)]]
        for at, name in enumerate([*plan.arms, "all rows"])
    }
    write_json(ARMS, {"seeds": list(ARM_SEEDS), "still_shown": arms})
    runs = 1 + len(plan.first_pairs())
    firsts = models(work, "firsts")
    losses = np.full((len(FIRST_SEEDS) * runs, firsts.shape[1]), np.nan, dtype=np.float32)
    losses[: len(firsts)] = firsts
    save_arrays(FIRSTS, {"losses": losses.reshape(len(FIRST_SEEDS), runs, -1)})
    return {"arms": len(answers), "firsts": len(firsts)}


if __name__ == "__main__":
    main()
