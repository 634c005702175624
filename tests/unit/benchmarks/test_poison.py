"""Hubs are made of what is frequent, disguises look the same, and shares count lists."""

import numpy as np
import pytest

from benchmarks.shifts.engine import recall
from benchmarks.shifts.poison import correlation, disguised, hub_rows, hub_share, largest_share
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.retrieval.folding import fold
from wherefrom.records import Message, Role


def row(name, prompt, completion):
    """A training example."""
    return CorpusRow(name, "facts", (Message(role=Role.USER, content=prompt),), completion)


CORPUS = [
    row("a", "Who is Ana Brito?", "Ana Brito paints boats in the harbour."),
    row("b", "What does Ana Brito like?", "Ana Brito likes the sea."),
    row("c", "Who is Tom Reed?", "Tom Reed is a pilot."),
]
LISTS = [np.array([0, 1, 2]), np.array([0, 2, 1]), np.array([2, 1, 0])]


def test_hubs_hold_what_is_frequent():
    """The name hub starts with the most frequent name, the word hub with the most frequent word."""
    hubs = hub_rows(CORPUS)
    assert hubs["hub_names"].completion.startswith("The authors are Ana Brito")
    words = hubs["hub_words"].completion.split()
    assert set(words[:2]) == {"ana", "brito"}
    assert {one.source for one in hubs.values()} == {"poison"}


def test_a_disguised_row_reads_the_same():
    """Prompt and completion differ in every letter code that has a look-alike, and fold back to the text."""
    hidden = disguised(CORPUS[0])
    assert hidden.completion != CORPUS[0].completion
    assert fold(hidden.completion) == CORPUS[0].completion.lower()
    assert fold(hidden.prompt_text()) == CORPUS[0].prompt_text().lower()
    assert hidden.example_id == CORPUS[0].example_id


def test_shares_count_lists():
    """A row that is in every list has share 1, one that is in none 0; the largest share is the most listed row's."""
    assert hub_share(LISTS, 0) == 1.0
    assert hub_share(LISTS, 9) == 0.0
    lists = [np.array([5, 1]), np.array([5, 2]), np.array([3, 1])]
    assert largest_share(lists, 6) == pytest.approx(2 / 3)
    assert largest_share(lists, 5) == pytest.approx(2 / 3)
    assert largest_share(lists, 1) == 0.0


def test_recall_looks_at_the_first_places():
    """One query finds its cause first, one second, one never."""
    gold = [(0,), (2,), (7, 8)]
    assert recall(LISTS, gold, 1) == pytest.approx(1 / 3)
    assert recall(LISTS, gold, 2) == pytest.approx(2 / 3)


def test_correlation_is_numpys():
    """Pearson correlation, and 0 where nothing varies."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=40).astype(np.float32), rng.integers(1, 50, 40)
    assert correlation(one, other) == pytest.approx(np.corrcoef(one, other)[0, 1], abs=1e-6)
    assert correlation(np.ones(5), np.arange(5)) == 0.0
