"""Trains the models of the experiments that take hundreds of them, many adapters in one pass, saved group by group.

    python -m benchmarks.gpu.experiments --work DIR [--parts halves,sources,rows] [--device cuda] [--together 48] [--minutes 9]

| part | what is trained |
| --- | --- |
| halves | the deep bank: new halves of its rows in complementary pairs, each at two seeds; before them some of the halves that were trained on a CPU, for comparison |
| sources | the deep bank without each of its sources, at several seeds |
| rows | the deep bank without each single row, at several seeds, and with all rows |
| arms | the demo's corpus without the rows that each method blames (`benchmarks.counterfactual`) and with all rows, at several seeds; each model answers the prompts again |
| firsts | the demo's corpus without first citations of the order shown and of BM25, two of different sources in one training, at two seeds |

What the last two leave out was drawn by `benchmarks.gpu.story_plan`. Everything is drawn by seeds before a model is trained. `benchmarks.gpu.collecting` brings what is finished into the files that are committed.
Products are TF32 on a GPU, everything else is float32.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.deep_bank import material as deep
from benchmarks.gpu.stacked import Member, StackedTraining, train_groups
from benchmarks.gpu.story_plan import as_row, load_plan
from benchmarks.program import command, named, run
from benchmarks.story import RECIPE as STORY_RECIPE
from benchmarks.story import read_corpus_rows
from benchmarks.work_folder import claim_folder, save_arrays
from demo.making.story_generate import prompt_tokens
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import write_json
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.records import sha256_of_json
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import token_rows

#: Pairs of halves beside the committed plan's, the seed that draws them, and the committed runs that are trained again.
PAIRS, PAIRS_SEED, COMPARED = 128, 20_261_128, 16
SOURCE_SEEDS, ROW_SEEDS = tuple(range(6)), (0, 1, 2)
ARM_SEEDS, FIRST_SEEDS = tuple(range(7, 15)), (7, 8)


@dataclass(frozen=True)
class Experiment:
    """Models to train, and the outputs whose losses each of them measures."""

    name: str
    recipe: Recipe
    rows: Sequence[CorpusRow]
    asked: Sequence[CorpusRow]
    members: Sequence[Member]
    #: Prompts that each model answers, if any.
    prompts: Sequence[Sequence[dict[str, str]]] = ()

    def sha256(self) -> str:
        """Hash of all that decides the numbers but the base model."""
        members = [[one.seed, list(one.rows), sorted(one.left_out)] for one in self.members]
        texts = [[row.example_id, str(row.turns), row.completion] for row in (*self.rows, *self.asked)]
        return sha256_of_json([self.recipe.sha256(), texts, members])


def new_halves(rows: int) -> npt.NDArray[np.bool_]:
    """Halves `[2 * PAIRS, N]` beside those of the committed plan; 2p and 2p + 1 complement each other."""
    return deep.complementary_halves(np.random.default_rng(PAIRS_SEED), rows, pairs=PAIRS)


def halves_members(plan: deep.Plan) -> list[Member]:
    """Committed halves to compare with, then new ones, both seeds of a pair behind each other."""
    count = plan.halves.shape[1]
    every = tuple(range(count))

    def member(half: npt.NDArray[np.bool_], seed: int) -> Member:
        return Member(seed, every, frozenset(np.flatnonzero(~half).tolist()))

    known = [member(plan.halves[one.half], one.seed) for one in plan.runs()[:COMPARED]]
    halves = new_halves(count)
    fresh = [
        member(halves[half], seed)
        for pair in range(PAIRS)
        for seed in deep.SEEDS
        for half in (2 * pair, 2 * pair + 1)
    ]
    return known + fresh


def sources_members(sources: Sequence[str]) -> list[Member]:
    """Without each source, in the order of the rows, seed by seed."""
    every = tuple(range(len(sources)))
    return [
        Member(seed, every, frozenset(row for row in every if sources[row] == name))
        for seed in SOURCE_SEEDS
        for name in dict.fromkeys(sources)
    ]


def rows_members(rows: int) -> list[Member]:
    """With all rows, then without each, seed by seed."""
    every = tuple(range(rows))
    gone = [frozenset[int](), *(frozenset({row}) for row in every)]
    return [Member(seed, every, one) for seed in ROW_SEEDS for one in gone]


def deep_experiment(name: str) -> Experiment:
    """A part that takes the deep bank's rows, queries and recipe."""
    material = deep.read_lora_material()
    sources = [row.source or "" for row in material.rows]
    members = {
        "halves": lambda: halves_members(material.plan),
        "sources": lambda: sources_members(sources),
        "rows": lambda: rows_members(len(material.rows)),
    }
    asked = [one.row for one in material.queries]
    return Experiment(name, deep.RECIPE, material.rows, asked, members[name]())


def story_experiment(name: str) -> Experiment:
    """A part that takes the demo's corpus and the recipe of its adapter."""
    plan = load_plan()
    rows = read_corpus_rows()
    every = tuple(range(len(rows)))
    if name == "arms":
        hard = [one for one in plan.asked if one.kind == "hard"]
        gone = [*plan.arms.values(), []]
        members = [Member(seed, tuple(sorted(set(every) - set(some)))) for some in gone for seed in ARM_SEEDS]
        prompts = [one.messages for one in hard]
        return Experiment(name, STORY_RECIPE, rows, [as_row(one) for one in hard], members, prompts)
    members = [
        Member(seed, every, frozenset(some)) for seed in FIRST_SEEDS for some in [(), *plan.first_pairs()]
    ]
    return Experiment(name, STORY_RECIPE, rows, [as_row(one) for one in plan.asked], members)


PARTS = ("halves", "sources", "rows", "arms", "firsts")


def main() -> None:
    """Train what is missing, and say how far it is."""
    parser = command(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of finished models' losses")
    parser.add_argument("--parts", default=",".join(PARTS), help="which, in which order (default: all)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct; default: the cache")
    parser.add_argument("--together", type=int, default=48, help="models that are trained in one pass")
    parser.add_argument("--minutes", type=float, default=9.0, help="no group is begun that would end later")
    parser.add_argument("--most", type=int, help="models of a part at most, for a trial")
    run(parser, _train_all, table=lambda result: [f"{name}: {done}" for name, done in result.items()])


def _train_all(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    until = time.monotonic() + 60.0 * arguments.minutes
    placement = Placement.resolve(arguments.device, "float32")
    if placement.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    folder: Path = arguments.work
    folder.mkdir(parents=True, exist_ok=True)
    base = load_model(arguments.model or ensure_base_model(default_cache()), placement=placement)
    found = {}
    for name in named(arguments.parts, PARTS, option="--parts"):
        experiment = experiment_of(name)
        done = train(base, experiment, folder, together=arguments.together, until=until, most=arguments.most)
        found[name] = f"{done} of {len(experiment.members)} models"
    return found


def experiment_of(name: str) -> Experiment:
    """The part by its name."""
    return story_experiment(name) if name in ("arms", "firsts") else deep_experiment(name)


def train(
    base: LanguageModel,
    experiment: Experiment,
    folder: Path,
    *,
    together: int,
    until: float,
    most: int | None,
) -> int:
    """Train the models that the folder lacks, while the next group still ends in time.

    Args:
        base: the base model.
        experiment: what is trained.
        folder: gets a file per group.
        together: models of a group, see `train_groups`.
        until: `time.monotonic` at which everything must be over.
        most: models at most; None for all.

    Returns:
        How many are finished.

    Raises:
        OutOfMemory: not even two models fit.
        ConfigurationError: the folder holds models of other rows, outputs or members.
    """
    claim_folder(
        folder,
        f"{experiment.name}.sha256",
        experiment.sha256(),
        holds=f"models of another {experiment.name}",
    )
    longest = experiment.recipe.max_tokens
    rows, asked = (token_rows(base, some, max_tokens=longest) for some in (experiment.rows, experiment.asked))
    members = experiment.members[:most]
    done = sum(len(one) for one in finished(folder, experiment.name).values())

    def train_group(place: int, group: Sequence[Member]) -> None:
        started, first = time.monotonic(), done + place
        losses, answers = _train_group(base, experiment, group, rows=rows, asked=asked)
        seconds = np.float64(time.monotonic() - started)
        save_arrays(folder / f"{experiment.name}-{first:04d}.npz", {"losses": losses, "seconds": seconds})
        if answers:
            write_json(folder / f"{experiment.name}-{first:04d}.json", answers)

    return done + train_groups(
        members[done:], train_group, name=experiment.name, together=together, until=until
    )


def _train_group(
    base: LanguageModel,
    experiment: Experiment,
    group: Sequence[Member],
    *,
    rows: Sequence[TokenRow],
    asked: Sequence[TokenRow],
) -> tuple[npt.NDArray[np.float32], list[list[str]]]:
    training = StackedTraining(base, rows, experiment.recipe, members=group)
    while not training.finished:
        training.step()
    losses = training.losses(asked)
    prompts = prompt_tokens(base.tokenizer, experiment.prompts)
    return losses, training.answers(base.tokenizer, prompts) if prompts else []


def finished(folder: Path, name: str) -> dict[int, npt.NDArray[np.float32]]:
    """Losses `[G, Q]` of the finished groups of a part, by the number of their first model.

    Raises:
        ConfigurationError: a group is missing between them.
    """
    found = {}
    for file in sorted(folder.glob(f"{name}-[0-9]*.npz")):
        with np.load(file, allow_pickle=False) as content:
            found[int(file.stem.rpartition("-")[2])] = content["losses"]
    if list(found) != [sum(len(one) for one in list(found.values())[:place]) for place in range(len(found))]:
        raise ConfigurationError(f"{folder}: groups of {name} are missing")
    return found


if __name__ == "__main__":
    main()
