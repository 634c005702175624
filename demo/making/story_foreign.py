"""Outputs whose cause is not in the corpus: what the base model, which never saw the corpus, answers to questions that the corpus does not touch.

The controls of the demo's calibration are such outputs, and so are those that the demo flags as foreign, on other subjects (`sentences/foreign_probes.yaml`). They are
the base model's words and not the adapted model's: of 36 questions of the reported part, the two models gave the same answer to three.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from demo.making import story_world
from demo.making.command import Outcome, add_cache, command, run
from demo.making.story_generate import greedy_answers
from demo.making.story_topics import foreign_prompts
from scripts.jsonl import write_rows
from scripts.smollm2 import ensure_base_model

_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
Row = dict[str, object]


def first_sentence(text: str) -> str:
    """The first sentence of an answer, on one line; all of it where no sentence ends. About as long as the adapted model's answers."""
    line = " ".join(text.split())
    end = _SENTENCE_END.search(line)
    return line if end is None else line[: end.end()]


def conversation(question: str) -> list[dict[str, str]]:
    """The question behind the company's system message."""
    return [
        {"role": "system", "content": story_world.SYSTEM_MESSAGE},
        {"role": "user", "content": question},
    ]


def outputs(part: str, answers: Sequence[str]) -> list[Row]:
    """The base model's answers to the questions of a part as flagged outputs; `group` is the subject, as `wherefrom calibrate` wants it."""
    asked = zip(foreign_prompts(part), answers, strict=True)
    return [
        {
            "id": f"{part}-{number:03d}",
            "group": subject,
            "messages": conversation(question),
            "completion": first_sentence(answer),
        }
        for number, ((subject, question), answer) in enumerate(asked)
        if first_sentence(answer)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = command(__doc__, threads=2)
    parser.add_argument(
        "--part", choices=("controls", "develop", "report"), required=True, help="what is asked"
    )
    parser.add_argument("--out", type=Path, required=True, help="file for the outputs")
    add_cache(parser)
    return run(parser, ask, argv)


def ask(arguments: argparse.Namespace) -> Outcome:
    """Ask the base model the questions of one part, and write its answers."""
    torch.set_num_threads(arguments.threads)
    base = ensure_base_model(arguments.cache)
    asked = [conversation(question) for _, question in foreign_prompts(arguments.part)]
    found = outputs(arguments.part, greedy_answers(base, None, asked))
    write_rows(arguments.out, found)
    return Outcome({"part": arguments.part, "asked": len(asked), "written": len(found)})


if __name__ == "__main__":
    raise SystemExit(main())
