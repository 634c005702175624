"""Shifts change what they say they change and nothing else."""

import json
import random

import pytest

from benchmarks.material import Passage
from benchmarks.shifts.wordings import FILLER, INJECTION, SHIFTS, names_of
from wherefrom.attribution.retrieval.folding import fold

ASKED = Passage(
    "Which prize did Hina Ameen win in Karachi?", "Hina Ameen won the Quill of Stone in 1998 for her maps."
)


def shifted(name, seed=0):
    """One shift of the example."""
    return SHIFTS[name](ASKED, random.Random(seed))


def test_names_are_proper_names_and_numbers():
    """A sentence's first small word is no name, names come once and in order."""
    assert names_of(ASKED.completion) == ["Hina Ameen", "Quill of Stone", "1998"]
    assert names_of("The lamp is red. It shines.") == []
    assert names_of("In Oslo and Oslo") == ["Oslo"]


@pytest.mark.parametrize("name", ["spanish", "german"])
def test_other_languages_keep_the_names_alone(name):
    """The names of question and answer stand in the new sentences, the English words do not."""
    found = shifted(name)
    assert "Hina Ameen" in found.prompt
    assert all(one in found.completion for one in ("Quill of Stone", "1998"))
    assert not {"won", "prize", "maps"} & set(f"{found.prompt} {found.completion}".split())


def test_suffixes_keep_what_was_there():
    """Injection, noise and padding only add behind one side."""
    assert shifted("injection") == Passage(ASKED.prompt + INJECTION, ASKED.completion)
    assert shifted("padded") == Passage(ASKED.prompt, ASKED.completion + FILLER)
    noisy = shifted("random_prompt")
    assert noisy.prompt.startswith(ASKED.prompt + " ")
    assert noisy.completion == ASKED.completion
    noisy = shifted("random_completion")
    assert noisy.completion.startswith(ASKED.completion + " ")
    assert noisy.prompt == ASKED.prompt
    assert shifted("random_prompt") == shifted("random_prompt")
    assert shifted("random_prompt") != shifted("random_prompt", seed=1)


def test_homoglyphs_look_alike_and_fold_back():
    """No word stays as it was, and folding gives the text in lower case."""
    found = shifted("homoglyphs")
    assert not set(found.completion.split()) & set(ASKED.completion.split()) - {"1998"}
    assert fold(found.completion) == ASKED.completion.lower()


def test_formats():
    """JSON holds both sides whole, plain text has no chat, truncation keeps the first half of the words."""
    found = shifted("json")
    assert json.loads(found.prompt)["question"] == ASKED.prompt
    assert json.loads(found.completion)["answer"] == ASKED.completion
    assert shifted("plain_text") == Passage("", f"{ASKED.prompt}\n{ASKED.completion}", chat=False)
    assert shifted("truncated").completion == "Hina Ameen won the Quill of"
    assert SHIFTS["truncated"](Passage("q", "one"), random.Random(0)).completion == "one"


def test_changed_fact_alters_one_fact():
    """The last fact that the question does not hold is another one; without a name the longest word is."""
    found = shifted("changed_fact")
    assert found.prompt == ASKED.prompt
    assert "1998" not in found.completion
    assert found.completion.startswith("Hina Ameen won the Quill of Stone in ")
    plain = SHIFTS["changed_fact"](Passage("What does it do?", "it prints colourful maps"), random.Random(0))
    assert "colourful" not in plain.completion
    assert plain.completion.startswith("it prints ")
