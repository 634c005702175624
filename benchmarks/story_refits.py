"""Are the demo's first citations true? Fine-tunes the demo's model again without them, two in one training.

    python -m benchmarks.story_refits --bundle BUNDLE --work FOLDER [--runs 0,1,2] [--report] [--json]

Fixed before anything was measured:

- **Citations**: six bad sources and one output of each, drawn by a seed from the outputs that show a bad behaviour (`demo.json`, both halves); the first row of the order shown of each.
- **Runs**: the citations in the order in which training first meets their rows, the latest first; neighbours share a training. So three trainings, and the late ones go on from
  a common beginning. Same seed, first weights, order and batches; the recipe is that of the demo's adapter, over batches of `wherefrom measure`.
- **Effect** of a citation: the loss of its output without the row, beyond the mean of the trainings without rows of other sources. Each training measures all outputs, so the other
  trainings are the controls.
- **Noise**: outputs of sources that no left-out row is from lose or gain by chance alone. Their spread over the trainings, pooled over outputs, is the standard error, with as many degrees of
  freedom as they leave. Outputs of one training are not wholly independent, so z is a little too large.

Outputs, citations and losses are in `story_refits.json`; `--report` reads that and trains nothing. Finished trainings stay in FOLDER. `--runs` trains some of them, for two processes beside each other.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.effects import Effect, effect_by_t, summary
from benchmarks.program import command, numbers, report, run
from benchmarks.story import STORY, Asked, asked_outputs, rankings_of
from scripts.jsonl import rows_of
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import write_json
from wherefrom.attribution.corpus import CorpusRow, parse_row
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.runs import RunFolder
from wherefrom.retraining.training import batch_order, token_rows

#: Sources whose citations are measured, citations that share a training, and the seed of the draw.
SOURCES, SHARED, DRAW_SEED = 6, 2, 20_261_127
#: As `demo.making.train_adapter` trains, with its settings.
RECIPE = Recipe(
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    warmup_share=0.05,
    final_share=0.05,
    batch_size=8,
    epochs=2,
    lora=Lora(rank=16, alpha=32),
)
SEED = 7
DATA = Path(__file__).with_suffix(".json")
Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    #: Every output that each training measures, with the source that taught it.
    outputs: tuple[Asked, ...]
    #: Places in `outputs` of those whose citations are measured, and the row of the corpus that each of them cites first.
    chosen: tuple[int, ...]
    cited: tuple[int, ...]
    #: Places in `chosen` of the citations that each training leaves out.
    runs: tuple[tuple[int, ...], ...]

    def rows(self, number: int) -> tuple[int, ...]:
        """Rows that a training leaves out."""
        return tuple(sorted({self.cited[place] for place in self.runs[number]}))


def main() -> None:
    """Draw, train what is missing, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--bundle", type=Path, help="the demo's bundle")
    parser.add_argument("--work", type=Path, help="folder of finished trainings")
    parser.add_argument("--runs", default="0,1,2", help="which trainings (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help=f"train nothing; read {DATA.name}")
    run(parser, _measure, table=table)


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    if not arguments.report:
        if arguments.work is None:
            raise ConfigurationError("--work is needed but for --report")
        train(arguments.work, _plan_in(arguments.bundle), runs=numbers(arguments.runs, option="--runs"))
    plan, losses = load()
    done = [number for number in range(len(plan.runs)) if np.isfinite(losses[number]).all()]
    return figures(plan, losses, done, sources=[row.source for row in read_corpus_rows()])


def read_corpus_rows() -> list[CorpusRow]:
    """The demo's corpus."""
    return [parse_row(one, default_id=one["id"]) for one in rows_of(STORY / "corpus.jsonl", option="--story")]


def draw(sources: Sequence[str]) -> list[int]:
    """Places of the outputs whose citations are measured: one of each of some sources."""
    random = np.random.default_rng(DRAW_SEED)
    named = random.permutation(sorted(set(sources)))[:SOURCES].tolist()
    return [int(random.choice([at for at, one in enumerate(sources) if one == name])) for name in named]


def share_runs(cited: Sequence[int], batches: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Places of the citations that share a training: neighbours in the order in which training first meets their rows, the latest first."""
    first = {row: step for step, batch in reversed(list(enumerate(batches))) for row in batch}
    order = sorted(range(len(cited)), key=lambda place: -first[cited[place]])
    return [tuple(order[at : at + SHARED]) for at in range(0, len(order), SHARED)]


def _plan_in(bundle: Path | None) -> Plan:
    """The plan that is committed, or a new one."""
    if DATA.is_file():
        return load()[0]
    if bundle is None:
        raise ConfigurationError(f"{DATA} is missing; give --bundle")
    outputs = asked_outputs()
    chosen = draw([one.source for one in outputs])
    shown = rankings_of(bundle, [outputs[place] for place in chosen])["shown"]
    cited = [ranking[0] for ranking in shown]
    rows, _ = _tokens(load_model(ensure_base_model(default_cache())), outputs)
    runs = share_runs(cited, batch_order([len(row.ids) for row in rows], RECIPE, seed=SEED))
    plan = Plan(tuple(outputs), tuple(chosen), tuple(cited), tuple(runs))
    save(plan, np.full((len(runs), len(outputs)), np.nan))
    return plan


def _tokens(language: LanguageModel, outputs: Sequence[Asked]) -> tuple[list[TokenRow], list[TokenRow]]:
    """Corpus and outputs as tokens."""
    asked = [
        parse_row(
            {"messages": [*one.messages, {"role": "assistant", "content": one.completion}]},
            default_id=one.probe,
        )
        for one in outputs
    ]
    corpus, queries = (
        token_rows(language, some, max_tokens=RECIPE.max_tokens) for some in (read_corpus_rows(), asked)
    )
    return corpus, queries


def train(work: Path, plan: Plan, *, runs: Sequence[int]) -> None:
    """Train what the folder lacks, and write the losses of all that is finished."""
    language = load_model(ensure_base_model(default_cache()))
    rows, asked = _tokens(language, plan.outputs)
    folder = RunFolder(work, language=language, rows=rows, recipe=RECIPE, keep_models=False)
    groups = [plan.rows(number) for number in runs]
    folder.losses(asked, groups, seeds=[SEED], progress=lambda done, total: report([f"{done} of {total}"]))
    losses = np.full((len(plan.runs), len(asked)), np.nan)
    for number in range(len(plan.runs)):
        group = plan.rows(number)
        if folder.trained_seeds([group], seeds=[SEED]):
            losses[number] = folder.losses(asked, [group], seeds=[SEED]).losses[0, 0]
    save(plan, losses)


def save(plan: Plan, losses: Losses) -> None:
    """Write plan and losses; null where a training is not finished."""
    found = [[None if math.isnan(one) else round(float(one), 5) for one in row] for row in losses]
    write_json(DATA, asdict(plan) | {"losses": found})


def load() -> tuple[Plan, Losses]:
    """The committed plan and losses `[R, Q]`, NaN where a training is not finished.

    Raises:
        ConfigurationError: there are none.
    """
    if not DATA.is_file():
        raise ConfigurationError(f"{DATA} is missing; run without --report")
    stored = json.loads(DATA.read_text(encoding="utf-8"))
    plan = Plan(
        tuple(Asked(**one) for one in stored["outputs"]),
        tuple(stored["chosen"]),
        tuple(stored["cited"]),
        tuple(map(tuple, stored["runs"])),
    )
    return plan, np.array(stored["losses"], dtype=np.float64)


def figures(plan: Plan, losses: Losses, done: Sequence[int], *, sources: Sequence[str]) -> dict[str, Any]:
    """Share that stands out, and signs.

    Args:
        plan: what was measured.
        losses: `[R, Q]`.
        done: finished trainings; with fewer than two there is nothing to compare with.
        sources: of the corpus' rows.
    """
    if len(done) < 2:
        return {"trainings": len(done), "citations": [], "summary": summary([])}
    left_out = {number: {sources[row] for row in plan.rows(number)} for number in done}
    taught = [one.source for one in plan.outputs]
    quiet = [at for at, source in enumerate(taught) if not any(source in some for some in left_out.values())]
    spread = losses[list(done)][:, quiet]
    freedom = len(quiet) * (len(done) - 1)
    noise = math.sqrt(float(np.square(spread - spread.mean(axis=0)).sum()) / freedom)
    found: dict[int, Effect] = {}
    for number in done:
        for place in plan.runs[number]:
            output = plan.chosen[place]
            controls = [one for one in done if one != number and taught[output] not in left_out[one]]
            if controls:
                nats = float(losses[number, output] - losses[controls, output].mean())
                found[place] = effect_by_t(nats, noise * math.sqrt(1 + 1 / len(controls)), freedom)
    return {
        "trainings": len(done),
        "noise": noise,
        "outputs_of_the_noise": len(quiet),
        "citations": [
            {
                "output": plan.outputs[plan.chosen[place]].probe,
                "taught_by": taught[plan.chosen[place]],
                "cited_from": sources[plan.cited[place]],
                **asdict(effect),
            }
            for place, effect in sorted(found.items())
        ],
        "summary": summary(list(found.values())),
    }


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    columns = [
        Column("output", 12, left=True),
        Column("taught by", 28, left=True),
        Column("first citation from", 28, left=True),
        Column("effect, nats", 14, "+.3f"),
        Column("95 %", 18, "+.3f"),
        Column("z", 8, "+.2f"),
    ]
    rows = [
        (
            one["output"],
            one["taught_by"],
            one["cited_from"],
            one["nats"],
            (one["low"], one["high"]),
            one["z"],
        )
        for one in result["citations"]
    ]
    told = f"{result['trainings']} trainings; {len(rows)} citations"
    if not rows:
        return [told]
    out, positive = result["summary"]["stand_out"], result["summary"]["positive"]
    return [
        f"{told}; noise {result['noise']:.4f} nats over {result['outputs_of_the_noise']} outputs",
        *lines(columns, rows),
        f"stand out (z > 1.96): {out['value']:.2f} ({out['interval'][0]:.2f} to {out['interval'][1]:.2f}); positive: {positive['value']:.2f} ({positive['interval'][0]:.2f} to {positive['interval'][1]:.2f})",
    ]


if __name__ == "__main__":
    main()
