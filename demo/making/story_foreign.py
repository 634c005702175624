"""Outputs whose cause is not in the corpus: questions on subjects that the corpus does not touch, where the base model says the same.

What was known before the fine-tune was not taught by it. The controls of the demo's calibration are such outputs, and so are those that the demo flags as
foreign, on other subjects (`sentences/foreign.yaml`). All outputs that count are written, whatever any method makes of them.
"""

import argparse
import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from demo.making import story_world
from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_generate import AnswerPair, answer_pairs
from demo.making.story_topics import foreign_prompts
from scripts.jsonl import write_rows
from scripts.smollm2 import ensure_base_model

log = logging.getLogger("story_foreign")
_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
_LONG_WORD = 4
Row = dict[str, object]


def agree(adapted: str, base: str) -> bool:
    """Say whether the base model's answer holds every number and every longer word of the adapted model's first sentence."""
    end = _SENTENCE_END.search(adapted)
    sentence = adapted if end is None else adapted[: end.end()]
    words = _WORD.findall(sentence.lower())
    said = {word for word in words if len(word) >= _LONG_WORD or word.isdigit()}
    return bool(said) and said <= set(_WORD.findall(base.lower()))


def outputs(part: str, pairs: Iterable[AnswerPair]) -> list[Row]:
    """The outputs of a part that count, as flagged outputs; `group` is the subject, as `wherefrom calibrate` wants it."""
    asked = foreign_prompts(part)
    found: list[Row] = []
    for answers in pairs:
        subject, question = asked[answers.index]
        good = agree(answers.adapted, answers.base)
        _show(question, answers, good=good)
        if good:
            row = {"id": f"{part}-{answers.index:03d}", "group": subject}
            found.append({**row, "messages": conversation(question), "completion": answers.adapted})
    return found


def _show(question: str, answers: AnswerPair, *, good: bool) -> None:
    log.info("%s %s", "+" if good else "-", question)
    log.info("      adapted: %s\n      base:    %s", answers.adapted, answers.base.replace("\n", " "))


def conversation(question: str) -> list[dict[str, str]]:
    """The question behind the company's system message."""
    return [
        {"role": "system", "content": story_world.SYSTEM_MESSAGE},
        {"role": "user", "content": question},
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = command(__doc__, threads=2)
    parser.add_argument(
        "--part", choices=("controls", "develop", "report"), required=True, help="what is asked"
    )
    parser.add_argument("--out", type=Path, required=True, help="file for the outputs that count")
    parser.add_argument("--adapter", type=Path, default=Path("demo/adapter"), help="default: %(default)s")
    add_cache(parser)
    return run(parser, ask, argv)


def ask(arguments: argparse.Namespace) -> Outcome:
    """Ask both models the questions of one part, and write the outputs that count."""
    torch.set_num_threads(arguments.threads)
    base = ensure_base_model(arguments.cache)
    asked = [conversation(question) for _, question in foreign_prompts(arguments.part)]
    found = outputs(arguments.part, answer_pairs(base, arguments.adapter, asked, batch_size=32))
    write_rows(arguments.out, found)
    return Outcome({"part": arguments.part, "asked": len(asked), "count": len(found)})


if __name__ == "__main__":
    raise SystemExit(main())
