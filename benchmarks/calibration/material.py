"""The outputs that `benchmarks/calibration` judges: facts with known causes, controls on absent authors, instructions, and strange text.

Controls are made like the folder's own queries: prompts cut at 64 tokens, completions at 48. An author is absent if no training example is one of its
question-and-answer pairs. Of the training wording every third pair is taken, to keep the run short.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.calibrating import judge_all
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.groups import Groups, near_duplicate_groups
from wherefrom.records import Message, Query, Role

#: Limits of the folder's own files, in tokens.
PROMPT_TOKENS, COMPLETION_TOKENS = 64, 48
#: Rows of each file of foreign text.
FOREIGN_ROWS = 150

Pair = tuple[str, str]


@dataclass(frozen=True)
class Judged:
    """Judged outputs of one kind."""

    queries: list[CitationFeatures]
    #: Corpus rows of the causes, or empty.
    gold: list[list[int]]
    #: Author of each, for controls.
    groups: list[str]

    def part(self, places: Sequence[int]) -> "Judged":
        """The outputs at some places."""
        return Judged(
            [self.queries[place] for place in places],
            [self.gold[place] for place in places] if self.gold else [],
            [self.groups[place] for place in places] if self.groups else [],
        )


@dataclass(frozen=True)
class Material:
    """Everything that the splits share."""

    teacher: Judged
    facts: Judged
    #: Outputs of the same kind without a known cause: those for fitting and those for testing.
    instructions: Judged
    held_out: Judged
    #: Controls in the wording of the evaluation facts, and in that of the training examples.
    paraphrased: Judged
    original: Judged
    strange: dict[str, Judged]
    groups: Groups


def judge_material(
    attributor: LanguageAttributor, yardstick: Path, tofu: Path, foreign: Sequence[Path]
) -> Material:
    """Send all outputs through search and selection."""
    corpus = read_corpus(yardstick / "corpus.jsonl").rows
    rows = {row.example_id: index for index, row in enumerate(corpus)}
    cut = _Cutter(yardstick / "audited")
    training = {(row.prompt_text(), row.completion) for row in corpus}

    def of_file(name: str, *, known: bool) -> Judged:
        read = [one for one in _lines(yardstick / f"{name}.jsonl") if bool(one.get("gold")) == known]
        pairs = [(one["prompt"], one["completion"]) for one in read]
        return _judged(attributor, pairs, gold=[[rows[cause] for cause in one["gold"]] for one in read])

    def absent(pairs: Sequence[Pair], authors: Sequence[str]) -> Judged:
        return _judged(attributor, [cut(pair) for pair in pairs], groups=authors)

    facts = _lines(tofu / "train_4000.jsonl")
    present = {one["author"] for one in facts if cut((one["question"], one["answer"])) in training}
    original = [one for one in facts if one["author"] not in present][::3]
    asked = [one for one in _lines(tofu / "queries_with_gold.jsonl") if one["gold_author"] not in present]
    plain = [(one["prompt"], one["completion"]) for one in _lines(yardstick / "queries.jsonl")]
    strange = {
        "shuffled letters": [_shuffled(pair) for pair in plain],
        "shifted letters": [_shifted(pair) for pair in plain],
    }
    strange |= {file.stem: [cut(pair) for pair in _pairs(file)] for file in foreign}
    return Material(
        teacher=of_file("teacher_queries", known=True),
        facts=of_file("queries", known=True),
        instructions=of_file("teacher_queries", known=False),
        held_out=of_file("queries", known=False),
        paraphrased=absent(
            [(one["prompt"], one["completion"]) for one in asked], [str(one["gold_author"]) for one in asked]
        ),
        original=absent(
            [(one["question"], one["answer"]) for one in original], [str(one["author"]) for one in original]
        ),
        strange={name: _judged(attributor, pairs) for name, pairs in strange.items()},
        groups=near_duplicate_groups([f"{row.prompt_text()}\n{row.completion}" for row in corpus]),
    )


class _Cutter:
    """Cuts a pair at the limits of the folder's own files."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(str(model), local_files_only=True)

    def __call__(self, pair: Pair) -> Pair:
        return self._cut(pair[0], PROMPT_TOKENS), self._cut(pair[1], COMPLETION_TOKENS)

    def _cut(self, text: str, limit: int) -> str:
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= limit else str(self._tokenizer.decode(ids[:limit]))


def _judged(
    attributor: LanguageAttributor,
    pairs: Sequence[Pair],
    *,
    gold: Sequence[list[int]] = (),
    groups: Sequence[str] = (),
) -> Judged:
    asked = [
        Query(key=str(place), turns=(Message(role=Role.USER, content=prompt),), completion=completion)
        for place, (prompt, completion) in enumerate(pairs)
    ]
    found = judge_all(attributor, asked, max_tokens=1024, progress=_silent)
    return Judged(found, list(gold), list(groups))


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _pairs(file: Path) -> list[Pair]:
    """Some rows of a file of other text, by a fixed draw."""
    rows = random.Random(0).sample(_lines(file), FOREIGN_ROWS)
    return [
        (one["prompt"], one["completion"])
        if "prompt" in one
        else (one["messages"][0]["content"], one["messages"][1]["content"])
        for one in rows
    ]


def _shuffled(pair: Pair) -> Pair:
    draw = random.Random(pair[0])
    return "".join(draw.sample(pair[0], len(pair[0]))), "".join(draw.sample(pair[1], len(pair[1])))


def _shifted(pair: Pair) -> Pair:
    shift = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")
    return pair[0].translate(shift), pair[1].translate(shift)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
