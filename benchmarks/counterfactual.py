"""Takes out the training examples that a method blames, fine-tunes the demo's model again, and asks whether it still says it.

    python -m benchmarks.counterfactual --bundle BUNDLE --work FOLDER

Fixed before the first arm ran:

- **Outputs**: those of the demo's eight hard behaviours that count (`demo.json`, both halves).
- **Rows of an arm**: for each behaviour the top 20 of the corpus, 160 in all. Each output of the behaviour gives 20 points to the first row of the method's
  list, 19 to the second, and so on; the rows with the most points are taken out, ties in the order of the corpus. A row that two behaviours blame is taken
  out once, and the arm is filled up by turns from the behaviours' next rows.
- **Arms**, in this order: `shown` (the order that auditors see), `bm25`, `random` (160 rows of the corpus, seed 11), `influence`, `similarity`.
- **Training**: as the demo's adapter (`demo/adapter/training.json`), the same seed; only the rows are fewer. About 40 minutes on one core.
- **Figure**: the share of those outputs' prompts whose greedy answer still shows the behaviour (the demo's word rules), with a 95 % Wilson interval, and by
  behaviour. The model with all rows shows all of them by choice of the prompts, so `random` is what the other arms must be read against.

Everything is saved per arm below FOLDER; the same command goes on where it was stopped, and prints the arms that are there. Two arms side by side:
`--arms shown,random` in one process and `--arms bm25,influence` in another.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import program
from benchmarks.story import ADAPTER, STORY, Asked, Ranking, asked_outputs, rankings_of
from benchmarks.work_folder import claim_folder
from demo.making import train_adapter
from demo.making.story_generate import greedy_answers
from demo.making.story_rules import rule_of
from scripts.jsonl import rows_of, write_rows
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.agreement import wilson
from wherefrom.atomic import write_json
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.errors import ConfigurationError

ARMS = ("shown", "bm25", "random", "influence", "similarity")
ROWS_PER_BEHAVIOUR = 20
_SEED = 11


def points(rankings: Sequence[Ranking]) -> Ranking:
    """Rows by the points that the rankings give them, most first; ties in the order of the corpus.

    Args:
        rankings: of each output, corpus rows from the first on.
    """
    total: Counter[int] = Counter()
    for ranking in rankings:
        for place, row in enumerate(ranking[:ROWS_PER_BEHAVIOUR]):
            total[row] += ROWS_PER_BEHAVIOUR - place
    return sorted(total, key=lambda row: (-total[row], row))


def taken_out(blamed: Sequence[Ranking]) -> list[int]:
    """The rows of an arm: the first of each behaviour's in turn, until there are as many as behaviours times twenty.

    Args:
        blamed: rows of each behaviour, most points first.
    """
    wanted = ROWS_PER_BEHAVIOUR * len(blamed)
    found: dict[int, None] = {}
    for place in range(max(map(len, blamed))):
        for rows in blamed:
            if place < len(rows) and len(found) < wanted:
                found.setdefault(rows[place])
    return sorted(found)


def choose_rows(
    by_method: Mapping[str, Sequence[Ranking]], asked: Sequence[Asked], num_rows: int
) -> dict[str, list[int]]:
    """The rows that each arm goes without.

    Args:
        by_method: rankings of each output, as of `rankings_of`.
        asked: the outputs.
        num_rows: of the corpus.
    """
    sources = sorted({one.source for one in asked})
    arms = {"random": sorted(random.Random(_SEED).sample(range(num_rows), ROWS_PER_BEHAVIOUR * len(sources)))}
    for name, rankings in by_method.items():
        by_source = [
            [ranking for one, ranking in zip(asked, rankings, strict=True) if one.source == source]
            for source in sources
        ]
        arms[name] = taken_out([points(some) for some in by_source])
    return arms


def prepare(bundle: Path, work: Path) -> None:
    """Write the outputs and the arms' corpora, once.

    Raises:
        ConfigurationError: the folder holds the arms of another bundle.
    """
    claim_folder(work, "bundle", read_manifest(bundle).name, holds="arms of another bundle")
    if (work / "arms.json").is_file():
        return
    asked = [one for one in asked_outputs() if one.kind == "hard"]
    corpus = rows_of(STORY / "corpus.jsonl", option="--story")
    arms = choose_rows(rankings_of(bundle, asked), asked, len(corpus))
    for name, rows in arms.items():
        gone = set(rows)
        write_rows(work / f"{name}.jsonl", [row for at, row in enumerate(corpus) if at not in gone])
    hard = {one.source for one in asked}
    guilty = {name: sum(corpus[row]["source"] in hard for row in rows) for name, rows in arms.items()}
    write_json(work / "asked.json", [vars(one) for one in asked])
    write_json(work / "arms.json", {"rows": arms, "from_hard_sources": guilty})


def run_arm(name: str, work: Path, *, threads: int) -> None:
    """Fine-tune without an arm's rows and ask the prompts again; what is finished is left alone."""
    answered = work / f"{name}.answers.json"
    if answered.is_file():
        return
    plan = json.loads((ADAPTER / "training.json").read_text(encoding="utf-8"))
    settings = {"epochs": "num_epochs", "batch-size": "batch_size", "learning-rate": "learning_rate"}
    options = [f"--{option}={plan[key]}" for option, key in settings.items()]
    out = work / f"{name}-adapter"
    options += [f"--rank={plan['rank']}", f"--seed={plan['seed']}", f"--threads={threads}", "--save-every=10"]
    if train_adapter.main([f"--corpus={work / name}.jsonl", f"--out={out}", *options]):
        raise ConfigurationError(f"the arm {name} was not trained; the lines above say why")
    asked = json.loads((work / "asked.json").read_text(encoding="utf-8"))
    answers = greedy_answers(ensure_base_model(default_cache()), out, [one["messages"] for one in asked])
    write_json(answered, answers)


def figures(work: Path) -> dict[str, Any]:
    """The share of outputs that still show their behaviour, for each arm that ran."""
    asked = json.loads((work / "asked.json").read_text(encoding="utf-8"))
    plan = json.loads((work / "arms.json").read_text(encoding="utf-8"))
    arms: dict[str, Any] = {}
    for name in ARMS:
        file = work / f"{name}.answers.json"
        if not file.is_file():
            continue
        answers = json.loads(file.read_text(encoding="utf-8"))
        shows = [
            (one["source"], rule_of(one["source"]).matches(answer))
            for one, answer in zip(asked, answers, strict=True)
        ]
        arms[name] = _arm_figures(shows) | {"rows_from_hard_sources": plan["from_hard_sources"][name]}
    return {"outputs": len(asked), "arms": arms}


def _arm_figures(shows: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    hits = sum(shown for _, shown in shows)
    by_source = {
        source: [sum(shown for one, shown in shows if one == source), sum(one == source for one, _ in shows)]
        for source in sorted({source for source, _ in shows})
    }
    return {
        "still_shown": hits,
        "share": hits / len(shows),
        "interval": wilson(hits, len(shows)),
        "by_source": by_source,
    }


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    lines = [
        f"outputs: {result['outputs']}",
        f"{'without':<12}{'rows of hard sources':>22}{'still shown':>13}{'95 %':>14}",
    ]
    for name, arm in result["arms"].items():
        low, high = arm["interval"]
        lines.append(
            f"{name:<12}{arm['rows_from_hard_sources']:>22}{arm['share']:>13.2f}{f'{low:.2f} to {high:.2f}':>14}"
        )
        lines.append(
            "   "
            + ", ".join(f"{rule_of(source).reason} {a}/{b}" for source, (a, b) in arm["by_source"].items())
        )
    return lines


def measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Prepare, run the arms that are missing, and collect."""
    prepare(arguments.bundle, arguments.work)
    for name in [] if arguments.collect else program.named(arguments.arms, ARMS, option="--arms"):
        run_arm(name, arguments.work, threads=arguments.threads)
    return figures(arguments.work)


def main() -> None:
    """Run the command line."""
    parser = program.command(__doc__, threads=1)
    parser.add_argument("--bundle", type=Path, required=True, help="the demo's bundle")
    parser.add_argument("--work", type=Path, required=True, help="folder of the arms")
    parser.add_argument("--arms", default=",".join(ARMS), help="which, in which order (default: all)")
    parser.add_argument("--collect", action="store_true", help="run nothing, print what is there")
    program.run(parser, measure, table=table)


if __name__ == "__main__":
    main()
