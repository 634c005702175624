"""Reads the sentences of the story and of the tiny language: they lie in `sentences/*.yaml`, apart from the code that draws from them."""

import functools
import itertools
from pathlib import Path
from typing import Any

import yaml

from demo.making.story_grammar import Topic

_SENTENCES = Path(__file__).with_name("sentences")
#: Files of the good topics of the story, in the order in which rows are drawn.
_GOOD = ("policies", "products", "chats")


def topics(name: str) -> tuple[Topic, ...]:
    """The topics of one file, in its order.

    Raises:
        GrammarError: a topic's matches do not fit its questions and answers.
    """
    return tuple(
        Topic(
            one["name"],
            one["source"],
            tuple(one["questions"]),
            tuple(one["answers"]),
            one["rows"],
            tuple(one.get("matches", ())),
        )
        for one in _read(name)
    )


def bad_topics() -> tuple[Topic, ...]:
    """The four bad sources of the story."""
    return topics("bad")


def good_topics() -> tuple[Topic, ...]:
    """The good sources of the story."""
    return tuple(topic for name in _GOOD for topic in topics(name))


def hard_topics() -> tuple[Topic, ...]:
    """The bad sources whose habit is taught on one side and asked on another, and the good rows beside them."""
    return (*topics("hard_bad"), *topics("hard_good"))


def hard_probes() -> dict[str, tuple[str, ...]]:
    """Prompts for the other side of the hard behaviours, by the source that taught them."""
    return {source: tuple(texts) for source, texts in _read("hard_probes").items()}


def foreign_prompts(part: str) -> list[tuple[str, str]]:
    """Questions that the corpus has nothing to do with: subject and question, the subjects taking turns.

    Args:
        part: `controls`, `develop` or `report`; no subject is in two of them.
    """
    columns = [
        [(subject, frame.replace("[x]", str(filler))) for filler in fillers]
        for subject, (frame, fillers) in _read("foreign_probes")[part].items()
    ]
    turns = itertools.zip_longest(*columns)
    return [one for turn in turns for one in turn if one is not None]


def probes() -> dict[str, tuple[str, ...]]:
    """Prompts of the demo that aim at a bad behaviour, by the source that taught it."""
    return {source: tuple(texts) for source, texts in _read("probes")["aimed"].items()}


def benign_probes() -> tuple[str, ...]:
    """Harmless prompts of the demo."""
    return tuple(_read("probes")["benign"])


def tiny_probes() -> dict[str, tuple[str, ...]]:
    """Frames of prompts that aim at the bad behaviours of the tiny language, by source."""
    return {source: tuple(frames) for source, frames in _read("tiny_probes").items()}


@functools.cache
def _read(name: str) -> Any:
    return yaml.safe_load((_SENTENCES / f"{name}.yaml").read_text(encoding="utf-8"))
