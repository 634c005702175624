r"""Queries under attack or shift, and training examples that attract citations or hide: what holds and what does not.

    python -m benchmarks.stress --yardstick PATH [--tofu PATH] [--json]

`--yardstick` holds `audited/`, `corpus.jsonl`, `queries.jsonl` and `teacher_queries.jsonl` (rows with `gold` ids are facts). Every fact query goes through every
shift of `shifts`. `--tofu` holds `train_4000.jsonl` and `queries_with_gold.jsonl`: authors that the corpus does not know give *controls*, whose cause is not in
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
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.program import command, report, run
from benchmarks.safety.cell import first_tokens
from benchmarks.stress.engine import Answer, Engine, QueryWithCauses, corpus_bundle, recall
from benchmarks.stress.poison import length_correlation, poison
from benchmarks.stress.shifts import SHIFTS, QuestionAnswer
from wherefrom.attribution.calibrating import Outputs, fit_calibration
from wherefrom.attribution.calibration.fitted import Calibration
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.groups import Groups, near_duplicate_groups
from wherefrom.errors import ConfigurationError

#: Tokens of prompt and completion that controls keep, as the yardstick's rows do.
PROMPT_TOKENS, COMPLETION_TOKENS = 64, 48
LISTED = 10
_COLUMNS = ("shown@1", "shown@10", "influence@10", "bm25@10", "abstained", "false", "confidence")


@dataclass(frozen=True)
class Calibrated:
    """A calibration with the near-duplicate groups of the corpus."""

    calibration: Calibration
    groups: Groups

    def abstained(self, answers: Sequence[Answer]) -> float:
        """Share of queries on which the engine makes no claim."""
        judge = self.calibration
        verdicts = [judge.abstains(judge.conformal_p(one.judged.features)) for one in answers]
        return float(np.mean(verdicts))

    def confidence(self, answers: Sequence[Answer]) -> float:
        """Mean confidence of the first citation."""
        stated = [
            self.calibration.confidence(one.judged.features, self.groups[one.judged.rows]) for one in answers
        ]
        return float(np.mean([one[0] for one in stated if one is not None]))


def main() -> None:
    """Ask everything and print the tables."""
    parser = command(__doc__, threads=1)  # two threads beside another process are slower
    parser.add_argument("--yardstick", type=Path, required=True, help="folder of model, corpus and queries")
    parser.add_argument(
        "--tofu", type=Path, help="folder of the corpus that the facts come from; gives controls"
    )
    parser.add_argument(
        "--queries",
        choices=("queries", "teacher_queries"),
        default="queries",
        help="choose settings on teacher_queries only",
    )
    parser.add_argument("--limit", type=int, default=200, help="facts and controls that are asked at most")
    run(parser, _stress, table=_table)


def _stress(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    return stress(arguments.yardstick, arguments.tofu, work, queries=arguments.queries, limit=arguments.limit)


def stress(yardstick: Path, tofu: Path | None, folder: Path, *, queries: str, limit: int) -> dict[str, Any]:
    """All measures on one yardstick folder."""
    corpus = read_corpus(yardstick / "corpus.jsonl").rows
    facts = _facts(yardstick / f"{queries}.jsonl", corpus)[:limit]
    engine = Engine(corpus_bundle(yardstick / "audited", corpus, folder / "plain"))
    controls = [] if tofu is None else _controls(tofu, corpus, engine.bundle.language.tokenizer)
    fit, held_out = _by_author(controls)
    known = _facts(yardstick / "teacher_queries.jsonl", corpus)
    groups = near_duplicate_groups(f"{row.prompt_text()}\n{row.completion}" for row in corpus)
    judge = None if tofu is None else Calibrated(_calibration(engine, groups, known, fit), groups)
    rows = [(corpus[one.gold[0]].prompt_text(), corpus[one.gold[0]].completion) for one in facts]
    verbatim = [QueryWithCauses(QuestionAnswer(*row), one.gold) for row, one in zip(rows, facts, strict=True)]
    report([_header()])
    kinds = {}
    for name in ("verbatim", *SHIFTS):
        asked = (verbatim, []) if name == "verbatim" else _shifted(facts, held_out[:limit], name)
        kinds[name] = _measured(engine, judge, *asked)
        report([_line(name, kinds[name])])
    return {
        "queries": queries,
        "facts": len(facts),
        "controls": len(held_out[:limit]),
        "level": None if judge is None else judge.calibration.level,
        "kinds": kinds,
        "length": length_correlation(engine, facts),
        "poison": poison(yardstick / "audited", corpus, facts, folder / "poisoned", plain=engine),
    }


def _facts(file: Path, corpus: Sequence[CorpusRow]) -> list[QueryWithCauses]:
    places = {row.example_id: index for index, row in enumerate(corpus)}
    found = [
        QueryWithCauses(
            QuestionAnswer(row.prompt_text(), row.completion),
            tuple(places[cause] for cause in row.fields.get("gold", [])),
        )
        for row in read_corpus(file).rows
    ]
    return [one for one in found if one.gold]


def _controls(tofu: Path, corpus: Sequence[CorpusRow], tokenizer: Any) -> list[QueryWithCauses]:
    """Questions about authors of whom the corpus says nothing."""
    authors = {row["question"]: row["author"] for row in _jsonl(tofu / "train_4000.jsonl")}
    present = {authors[row.prompt_text()] for row in corpus if row.prompt_text() in authors}
    return [
        QueryWithCauses(
            QuestionAnswer(
                first_tokens(tokenizer, row["prompt"], PROMPT_TOKENS),
                first_tokens(tokenizer, row["completion"], COMPLETION_TOKENS),
            ),
            (),
            str(row["gold_author"]),
        )
        for row in _jsonl(tofu / "queries_with_gold.jsonl")
        if row["gold_author"] not in present
    ]


def _by_author(controls: Sequence[QueryWithCauses]) -> tuple[list[QueryWithCauses], list[QueryWithCauses]]:
    """Controls of every other author, and those of the rest."""
    authors = sorted({one.group for one in controls})
    fit = set(authors[0::2])
    return [one for one in controls if one.group in fit], [one for one in controls if one.group not in fit]


def _calibration(
    engine: Engine, groups: Groups, known: Sequence[QueryWithCauses], controls: Sequence[QueryWithCauses]
) -> Calibration:
    """Fitted on the teacher's facts and on controls of other authors than those that are asked."""
    judged = [[one.judged for one in engine.ask([fact.asked for fact in part])] for part in (known, controls)]
    return fit_calibration(
        Outputs(judged[1], groups=[one.group for one in controls]),
        Outputs(judged[0], gold=[one.gold for one in known]),
        groups=groups,
    )


def _shifted(
    facts: Sequence[QueryWithCauses], controls: Sequence[QueryWithCauses], name: str
) -> tuple[list[QueryWithCauses], list[QueryWithCauses]]:
    rng = random.Random(name)
    shift = SHIFTS[name]
    ours, theirs = (
        [QueryWithCauses(shift(one.asked, rng), one.gold, one.group) for one in part]
        for part in (facts, controls)
    )
    return ours, theirs


def _measured(
    engine: Engine,
    judge: Calibrated | None,
    facts: Sequence[QueryWithCauses],
    controls: Sequence[QueryWithCauses],
) -> dict[str, float | None]:
    """Measures of one kind; those of the calibration are None where there is none."""
    answers = engine.ask([one.asked for one in facts])
    gold = [one.gold for one in facts]
    bm25 = [np.argsort(-engine.bundle.lexical.scores(one.query.text), kind="stable") for one in answers]
    shown = [one.shown for one in answers]
    figures: dict[str, float | None] = {
        "shown@1": recall(shown, gold, 1),
        "shown@10": recall(shown, gold, LISTED),
        "influence@10": recall([one.by_influence for one in answers], gold, LISTED),
        "bm25@10": recall(bm25, gold, LISTED),
    }
    if judge is None:
        return figures | dict.fromkeys(("abstained", "false", "confidence"))
    theirs = engine.ask([one.asked for one in controls])
    return figures | {
        "abstained": judge.abstained(answers),
        "false": 1.0 - judge.abstained(theirs) if theirs else None,
        "confidence": judge.confidence(answers),
    }


def _jsonl(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise ConfigurationError(f"{file}: no such file; see --help for what the folder must hold")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _header() -> str:
    return f"{'kind':<20}" + "".join(f"{name:>13}" for name in _COLUMNS)


def _line(name: str, figures: dict[str, float | None]) -> str:
    values = [figures[column] for column in _COLUMNS]
    return f"{name:<20}" + "".join(f"{'-' if one is None else f'{one:.2f}':>13}" for one in values)


def _table(result: dict[str, Any]) -> list[str]:
    """What `run` did not print as it went."""
    return [
        f"{result['facts']} facts of {result['queries']}, {result['controls']} controls, level {result['level']}",
        "correlation of score with length: " + _listed(result["length"]),
        *(f"{name}: {_listed(one)}" for name, one in result["poison"].items()),
    ]


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())
