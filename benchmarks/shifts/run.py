r"""Queries under attack or shift, and training examples that attract citations or hide: what holds and what does not.

    python -m benchmarks.shifts --yardstick PATH [--tofu PATH] [--json]

`--yardstick` holds `audited/`, `corpus.jsonl`, `queries.jsonl` and `teacher_queries.jsonl` (rows with `gold` ids are facts). Every fact query goes through every
shift of `wordings`. `--tofu` holds `train_4000.jsonl` and `queries_with_gold.jsonl`: authors that the corpus does not know give *controls*, whose cause is not in
it. Half of these authors (and the teacher queries) fit a calibration without any shift; the other half goes through the same shifts as the facts.

    recall@k    share of facts whose known cause is among the k best: order shown, influence among the candidates, BM25
    abstained   share of facts on which the calibrated engine makes no claim
    false       share of controls on which it makes one (a false citation); at most the calibration's level where nothing is shifted
    confidence  mean confidence of the first citation; shown@1 is how often it was right

Poison: rows made of the corpus' most frequent words or of its most frequent names are added to the corpus' record (`hub`: in what share of all top-10
lists does one example stand?), and known causes are rewritten with look-alike letters (`hidden`: are they still found?). The model is not trained on either:
this is what a poisoner of the record can do, not what a poisoned training run does.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.material import Passage, first_whole_tokens
from benchmarks.program import command, report, run
from benchmarks.shifts.engine import Answer, Engine, corpus_bundle, recall
from benchmarks.shifts.poison import LISTED, ORDERS, length_correlation, poison
from benchmarks.shifts.wordings import SHIFTS
from benchmarks.small_model import SmallModel, add_queries, add_yardstick
from scripts.jsonl import rows_of
from wherefrom.attribution.calibrating import Outputs, fit_calibration
from wherefrom.attribution.calibration.fitted import Calibration
from wherefrom.attribution.groups import Groups, near_duplicate_groups
from wherefrom.evaluation.tables import Column, table
from wherefrom.evaluation.trust import Verdicts, verdicts_of

#: Tokens of prompt and completion that controls keep, as the yardstick's rows do.
PROMPT_TOKENS, COMPLETION_TOKENS = 64, 48
_FIGURES = ("shown@1", "shown@10", "influence@10", "bm25@10", "abstained", "false", "confidence")
_COLUMNS = (Column("kind", 20, left=True), *(Column(name, 13, ".2f") for name in _FIGURES))


@dataclass(frozen=True)
class Calibrated:
    """A calibration with the near-duplicate groups of the corpus."""

    calibration: Calibration
    groups: Groups

    def verdicts(self, answers: Sequence[Answer]) -> Verdicts:
        """What the calibration says of each answer."""
        return verdicts_of(self.calibration, [one.judged for one in answers], self.groups)


def main() -> None:
    """Ask everything and print the tables."""
    parser = command(__doc__, threads=1)  # two threads beside another process are slower
    add_yardstick(parser)
    add_queries(parser)
    parser.add_argument(
        "--tofu", type=Path, help="folder of the corpus that the facts come from; gives controls"
    )
    parser.add_argument("--limit", type=int, default=200, help="facts and controls that are asked at most")
    run(parser, _shifts, table=_table)


def _shifts(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    return measure(
        arguments.yardstick, arguments.tofu, work, queries=arguments.queries, limit=arguments.limit
    )


def measure(folder: SmallModel, tofu: Path | None, work: Path, *, queries: str, limit: int) -> dict[str, Any]:
    """All measures on one yardstick folder."""
    facts, known = _facts(folder, queries)[:limit], _facts(folder, "teacher_queries")
    engine = Engine(corpus_bundle(folder.model, folder.corpus, work / "plain"))
    controls = [] if tofu is None else _controls(tofu, folder, engine.bundle.language.tokenizer)
    fit, held_out = _by_author(controls)
    groups = near_duplicate_groups(f"{row.prompt_text()}\n{row.completion}" for row in folder.corpus)
    judge = None if tofu is None else Calibrated(_calibration(engine, groups, known, fit), groups)
    report(table(_COLUMNS, []))
    kinds = {}
    for name in ("verbatim", *SHIFTS):
        asked = (
            ([_verbatim(one, folder) for one in facts], [])
            if name == "verbatim"
            else _shifted(facts, held_out[:limit], name)
        )
        kinds[name] = _measured(engine, judge, *asked)
        report(table(_COLUMNS, [_row(name, kinds[name])])[1:])
    return {
        "queries": queries,
        "facts": len(facts),
        "controls": len(held_out[:limit]),
        "level": None if judge is None else judge.calibration.level,
        "kinds": kinds,
        "length": length_correlation(engine, facts),
        "poison": poison(folder.model, folder.corpus, facts, work / "poisoned", plain=engine),
    }


def _facts(folder: SmallModel, name: str) -> list[Passage]:
    pairs = zip(folder.queries(name), folder.causes(name), strict=True)
    return [Passage(row.prompt_text(), row.completion, gold=tuple(gold)) for row, gold in pairs if gold]


def _verbatim(fact: Passage, folder: SmallModel) -> Passage:
    """The fact in the words of its first cause."""
    row = folder.corpus[fact.gold[0]]
    return replace(fact, prompt=row.prompt_text(), completion=row.completion)


def _controls(tofu: Path, folder: SmallModel, tokenizer: Any) -> list[Passage]:
    """Questions about authors of whom the corpus says nothing."""
    authors = {row["question"]: row["author"] for row in rows_of(tofu / "train_4000.jsonl", option="--tofu")}
    asked = [row.prompt_text() for row in folder.corpus]
    present = {authors[prompt] for prompt in asked if prompt in authors}
    return [
        Passage(
            first_whole_tokens(tokenizer, row["prompt"], PROMPT_TOKENS),
            first_whole_tokens(tokenizer, row["completion"], COMPLETION_TOKENS),
            group=str(row["gold_author"]),
        )
        for row in rows_of(tofu / "queries_with_gold.jsonl", option="--tofu")
        if row["gold_author"] not in present
    ]


def _by_author(controls: Sequence[Passage]) -> tuple[list[Passage], list[Passage]]:
    """Controls of every other author, and those of the rest."""
    authors = sorted({one.group for one in controls})
    fit = set(authors[0::2])
    return [one for one in controls if one.group in fit], [one for one in controls if one.group not in fit]


def _calibration(
    engine: Engine, groups: Groups, known: Sequence[Passage], controls: Sequence[Passage]
) -> Calibration:
    """Fitted on the teacher's facts and on controls of other authors than those that are asked."""
    judged = [[one.judged for one in engine.ask(part)] for part in (known, controls)]
    return fit_calibration(
        Outputs(judged[1], groups=[one.group for one in controls]),
        Outputs(judged[0], gold=[one.gold for one in known]),
        groups=groups,
    )


def _shifted(
    facts: Sequence[Passage], controls: Sequence[Passage], name: str
) -> tuple[list[Passage], list[Passage]]:
    rng = random.Random(name)
    shift = SHIFTS[name]
    ours, theirs = ([shift(one, rng) for one in part] for part in (facts, controls))
    return ours, theirs


def _measured(
    engine: Engine,
    judge: Calibrated | None,
    facts: Sequence[Passage],
    controls: Sequence[Passage],
) -> dict[str, float | None]:
    """Measures of one kind; those of the calibration are None where there is none."""
    answers = engine.ask(facts)
    gold = [one.gold for one in facts]
    bm25 = ORDERS["bm25"](answers, engine)
    shown = [one.shown for one in answers]
    figures: dict[str, float | None] = {
        "shown@1": recall(shown, gold, 1),
        "shown@10": recall(shown, gold, LISTED),
        "influence@10": recall([one.by_influence for one in answers], gold, LISTED),
        "bm25@10": recall(bm25, gold, LISTED),
    }
    if judge is None:
        return figures | dict.fromkeys(("abstained", "false", "confidence"))
    ours, theirs = judge.verdicts(answers), judge.verdicts(engine.ask(controls))
    return figures | {
        "abstained": float(ours.abstained.mean()),
        "false": 1.0 - float(theirs.abstained.mean()) if controls else None,
        "confidence": float(np.mean([stated[0] for stated in ours.stated if len(stated)])),
    }


def _row(name: str, figures: dict[str, float | None]) -> list[Any]:
    return [name, *(figures[one] for one in _FIGURES)]


def _table(result: dict[str, Any]) -> list[str]:
    """What `run` did not print as it went."""
    return [
        f"{result['facts']} facts of {result['queries']}, {result['controls']} controls, level {result['level']}",
        "correlation of score with length: " + _listed(result["length"]),
        *(f"{name}: {_listed(one)}" for name, one in result["poison"].items()),
    ]


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
