"""The outputs that `benchmarks/calibration` judges: facts with known causes, controls on absent authors, instructions, and strange text.

Controls are made like the folder's own queries: prompts cut at 64 tokens, completions at 48. An author is absent if no training example is one of its
question-and-answer pairs. Of the training wording every third pair is taken, to keep the run short.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import transformers

from benchmarks.material import Passage, first_tokens, queries_of
from benchmarks.small_model import SmallModel
from scripts.jsonl import rows_of
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.calibrating import Outputs, judge_all
from wherefrom.attribution.groups import Groups, near_duplicate_groups
from wherefrom.attribution.progress import silent
from wherefrom.evaluation.asking import MAX_TOKENS

#: Limits of the folder's own files, in tokens.
PROMPT_TOKENS, COMPLETION_TOKENS = 64, 48
#: Rows of each file of foreign text.
FOREIGN_ROWS = 150


@dataclass(frozen=True)
class Material:
    """Everything that the splits share."""

    teacher: Outputs
    facts: Outputs
    #: Outputs of the same kind without a known cause: those for fitting and those for testing.
    instructions: Outputs
    held_out: Outputs
    #: Controls in the wording of the evaluation facts, and in that of the training examples.
    paraphrased: Outputs
    original: Outputs
    strange: dict[str, Outputs]
    groups: Groups


def part(outputs: Outputs, places: Sequence[int]) -> Outputs:
    """The outputs at some places."""
    return Outputs(
        [outputs.queries[place] for place in places],
        groups=[outputs.groups[place] for place in places] if outputs.groups else (),
        gold=[outputs.gold[place] for place in places] if outputs.gold else (),
    )


def judge_material(
    attributor: LanguageAttributor, folder: SmallModel, tofu: Path, foreign: Sequence[Path]
) -> Material:
    """Send all outputs through search and selection."""
    cut = _cutter(folder.model)
    training = {(row.prompt_text(), row.completion) for row in folder.corpus}

    def of_file(name: str, *, known: bool) -> Outputs:
        rows = zip(folder.queries(name), folder.causes(name), strict=True)
        asked = [
            (Passage(row.prompt_text(), row.completion), gold) for row, gold in rows if bool(gold) == known
        ]
        return _judged(attributor, [one for one, _ in asked], gold=[gold for _, gold in asked])

    def absent(passages: Iterable[Passage]) -> Outputs:
        kept = [one for one in passages if one.group not in present]
        return _judged(attributor, [cut(one) for one in kept], groups=[one.group for one in kept])

    facts = [
        Passage(one["question"], one["answer"], group=str(one["author"]))
        for one in rows_of(tofu / "train_4000.jsonl", option="--tofu")
    ]
    present = {one.group for one in facts if (cut(one).prompt, cut(one).completion) in training}
    asked = [
        Passage(one["prompt"], one["completion"], group=str(one["gold_author"]))
        for one in rows_of(tofu / "queries_with_gold.jsonl", option="--tofu")
    ]
    plain = [Passage(row.prompt_text(), row.completion) for row in folder.queries("queries")]
    strange = {
        "shuffled letters": [_shuffled(one) for one in plain],
        "shifted letters": [_shifted(one) for one in plain],
    }
    strange |= {file.stem: [cut(one) for one in _foreign(file)] for file in foreign}
    return Material(
        teacher=of_file("teacher_queries", known=True),
        facts=of_file("queries", known=True),
        instructions=of_file("teacher_queries", known=False),
        held_out=of_file("queries", known=False),
        paraphrased=absent(asked),
        original=absent([one for one in facts if one.group not in present][::3]),
        strange={name: _judged(attributor, passages) for name, passages in strange.items()},
        groups=near_duplicate_groups([f"{row.prompt_text()}\n{row.completion}" for row in folder.corpus]),
    )


def _cutter(model: Path) -> Callable[[Passage], Passage]:
    """Cuts a passage at the limits of the folder's own files."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(model), local_files_only=True)

    def cut(one: Passage) -> Passage:
        return replace(
            one,
            prompt=first_tokens(tokenizer, one.prompt, PROMPT_TOKENS),
            completion=first_tokens(tokenizer, one.completion, COMPLETION_TOKENS),
        )

    return cut


def _judged(
    attributor: LanguageAttributor,
    passages: Sequence[Passage],
    *,
    gold: Sequence[list[int]] = (),
    groups: Sequence[str] = (),
) -> Outputs:
    found = judge_all(attributor, queries_of(passages), max_tokens=MAX_TOKENS, progress=silent)
    return Outputs(found, groups=groups, gold=gold)


def _foreign(file: Path) -> list[Passage]:
    """Some rows of a file of other text, by a fixed draw."""
    rows = random.Random(0).sample(rows_of(file, option="--foreign"), FOREIGN_ROWS)
    return [
        Passage(one["prompt"], one["completion"])
        if "prompt" in one
        else Passage(one["messages"][0]["content"], one["messages"][1]["content"])
        for one in rows
    ]


def _shuffled(one: Passage) -> Passage:
    draw = random.Random(one.prompt)
    prompt = "".join(draw.sample(one.prompt, len(one.prompt)))
    return replace(one, prompt=prompt, completion="".join(draw.sample(one.completion, len(one.completion))))


def _shifted(one: Passage) -> Passage:
    shift = str.maketrans("abcdefghijklmnopqrstuvwxyz", "nopqrstuvwxyzabcdefghijklm")
    return replace(one, prompt=one.prompt.translate(shift), completion=one.completion.translate(shift))
