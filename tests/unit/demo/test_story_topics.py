"""The sentences in `demo/making/sentences` are those that the committed files were made from."""

import json
from pathlib import Path
from typing import Any

import pytest

from demo.making import make_story, make_tiny, story_topics

DEMO = Path(__file__).parents[3] / "demo"
STORY = (*story_topics.bad_topics(), *story_topics.good_topics(), *story_topics.hard_topics())


def rows(file: Path) -> list[Any]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_the_tiny_corpus_comes_out_again() -> None:
    """Row by row, from the seed in tiny.json."""
    seed = json.loads((DEMO / "tiny" / "tiny.json").read_text("utf-8"))["seed"]
    assert make_tiny.make_corpus(seed) == rows(DEMO / "tiny" / "corpus.jsonl")


def test_the_probes_come_out_again() -> None:
    """The story's prompts; its corpus needs the base model's tokenizer (`python -m demo.making.make_story --out FOLDER`)."""
    assert make_story.probe_rows([]) == rows(DEMO / "story" / "prompts.jsonl")


@pytest.mark.parametrize(
    "name",
    [
        one.stem
        for one in sorted((DEMO / "making" / "sentences").glob("*.yaml"))
        if not one.stem.endswith("probes")
    ],
)
def test_every_file_is_used(name: str) -> None:
    """Topics with distinct names, questions and answers, all drawn from; probes are below."""
    found = story_topics.topics(name)
    assert len({one.name for one in found}) == len(found) > 0
    assert all(one.questions and one.answers and one.num_rows > 0 for one in found)
    tiny = ("tiny_good", "tiny_bad")
    assert name in tiny or set(found) <= {*STORY}


def test_sources_of_the_story_are_described() -> None:
    """Every topic's source has its line in story.json."""
    assert {one.source for one in STORY} == set(make_story.SOURCES)
