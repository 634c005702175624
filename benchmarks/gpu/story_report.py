"""What the demo's model does without the rows that are blamed: whole lists (arms), and single first citations.

    python -m benchmarks.gpu.story_report [--json]

`benchmarks.gpu.experiments` trained the models, `story_plan` drew what is left out; this reads their committed results.

- **Arms**: the share of the hard behaviours' outputs that still show their behaviour when the model is trained again without the rows that a method blames, 20 for each
  behaviour, over several seeds. The prompts were chosen because the demo's own model shows the behaviour; a training with all rows at another seed shows it less often. `all rows` says how
  often. Intervals: bootstrap over seeds and outputs together; differences are taken inside each draw.
- **First citations**: one training leaves out the first citations of outputs of two sources. The effect on an output is its loss there beyond the trainings without rows of its own source,
  seed by seed; these are also the controls of its t-test. `stand out` is z > 1.96.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.effects import Effect, effect_by_t, summary
from benchmarks.gpu.story_plan import StoryPlan, load_plan
from benchmarks.program import command, run
from benchmarks.story import read_corpus_rows
from wherefrom.evaluation.estimates import middle, resampled_together
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines

ARMS, FIRSTS = (Path(__file__).with_name(name) for name in ("story_arms.json", "story_firsts.npz"))
DRAWS, DRAW_SEED = 2000, 20_261_128
#: The arm that others are compared with.
AGAINST = "bm25"
Shown = npt.NDArray[np.bool_]
Losses = npt.NDArray[np.float64]


def main() -> None:
    """Read and report."""
    run(command(__doc__), _measure, table=table)


def _measure(_arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    plan = load_plan()
    stored = json.loads(ARMS.read_text(encoding="utf-8"))["still_shown"]
    shown = {name: np.array([[mark == "1" for mark in own] for own in arm]) for name, arm in stored.items()}
    hard = [one.source for one in plan.asked if one.kind == "hard"]
    with np.load(FIRSTS, allow_pickle=False) as content:
        losses = content["losses"].astype(np.float64)
    sources = [row.source or "" for row in read_corpus_rows()]
    return {"arms": arm_figures(shown, hard), "firsts": first_figures(plan, losses, sources)}


def arm_figures(shown: Mapping[str, Shown], sources: Sequence[str]) -> dict[str, Any]:
    """Share that still shows the behaviour, by arm.

    Args:
        shown: `[S, Q]` of each arm, whether the output shows its behaviour.
        sources: the source that taught each output, `[Q]`.
    """
    seeds, outputs = next(iter(shown.values())).shape
    drawn: dict[str, list[float]] = {name: [] for name in shown}
    for own, asked in resampled_together(seeds, outputs, resamples=DRAWS, seed=DRAW_SEED):
        for name, one in shown.items():
            drawn[name].append(float(one[own][:, asked].mean()))
    draws = {name: np.array(one) for name, one in drawn.items()}
    return {
        name: {
            "trainings": seeds,
            "outputs": outputs,
            "share": float(one.mean()),
            "interval": middle(draws[name]),
            "below_bm25": float(shown[AGAINST].mean() - one.mean()),
            "below_bm25_interval": middle(draws[AGAINST] - draws[name]),
            "by_source": {
                source: float(one[:, [source == own for own in sources]].mean())
                for source in dict.fromkeys(sources)
            },
        }
        for name, one in shown.items()
    }


def first_figures(plan: StoryPlan, losses: Losses, sources: Sequence[str]) -> dict[str, Any]:
    """Effects of first citations, and of rows of other sources.

    Args:
        plan: what was left out.
        losses: `[S, R, Q]` under each training, the first one with all rows; NaN where it is not finished.
        sources: of the corpus' rows.
    """
    runs: list[tuple[int, ...]] = [(), *plan.first_pairs()]
    gone = [{sources[row] for row in one} for one in runs]
    found: dict[str, Any] = {}
    for name, first in plan.first.items():
        effects = []
        for output, row in enumerate(first):
            own = next(place for place, one in enumerate(runs) if row in one)
            taught = plan.asked[output].source
            others = [place for place, some in enumerate(gone) if taught not in some and place != own]
            effects.append(effect_of(losses[:, :, output], own, others))
        found[name] = summary(effects) | {
            "from_the_source": sum(
                sources[row] == one.source for row, one in zip(first, plan.asked, strict=True)
            )
        }
    unrelated = [
        effect_of(losses[:, :, output], place, [other for other in quiet if other != place])
        for output, one in enumerate(plan.asked)
        for quiet in [[place for place, some in enumerate(gone) if one.source not in some]]
        for place in quiet
    ]
    return found | {"rows of other sources": summary(unrelated)}


def effect_of(losses: Losses, own: int, others: Sequence[int]) -> Effect:
    """The effect of what one training leaves out, beside others of the same seed: the difference of means over the seeds in which it is finished.

    Args:
        losses: of one output, `[S, R]`.
        own: the training.
        others: its controls.
    """
    differences, errors, freedom = [], [], 0
    for seed in losses:
        held = seed[[place for place in others if np.isfinite(seed[place])]]
        if np.isfinite(seed[own]):
            differences.append(seed[own] - held.mean())
            errors.append(held.var(ddof=1) * (1 + 1 / len(held)))
            freedom += len(held) - 1
    error = float(np.sqrt(np.sum(errors))) / len(errors)
    return effect_by_t(float(np.mean(differences)), error, freedom)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    arms = [
        Column("trained without", 18, left=True), Column("trainings", 11), Column("still shown", 13, ".3f"), Column("95 %", 18, ".3f"),
        Column("below BM25", 12, "+.3f"), Column("95 %", 18, "+.3f"),
    ]  # fmt: skip
    firsts = [
        Column("first citation of", 24, left=True), Column("n", 6), Column("stand out", 11, ".2f"), Column("95 %", 15, ".2f"), Column("positive", 10, ".2f"),
        Column("95 %", 15, ".2f"), Column("median nats", 13, "+.4f"), Column("from the source", 17),
    ]  # fmt: skip
    return [
        *lines(
            arms,
            [
                (name, one["trainings"], one["share"], one["interval"], one["below_bm25"], one["below_bm25_interval"])
                for name, one in result["arms"].items()
            ],
        ),
        *(
            f"  {name}: " + ", ".join(f"{source} {share:.2f}" for source, share in one["by_source"].items())
            for name, one in result["arms"].items()
        ),
        *lines(
            firsts,
            [
                (
                    name, one["n"], one["stand_out"]["value"], one["stand_out"]["interval"], one["positive"]["value"], one["positive"]["interval"],
                    one["median_nats"], one.get("from_the_source", "-"),
                )
                for name, one in result["firsts"].items()
            ],
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
