"""The search that does not score every row finds what scoring every row finds, with the same scores bit for bit."""

import tracemalloc
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.attribution.retrieval import lexical, word_search
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.attribution.retrieval.word_search import Postings

#: Common words first: their numbers are drawn more often.
WORDS = [f"w{number}" for number in range(40)]


def corpus(rows: int, *, seed: int) -> list[str]:
    """Texts of words whose frequencies fall as those of a language."""
    generator = np.random.default_rng(seed)
    shares = 1.0 / np.arange(1, len(WORDS) + 1)
    return [
        " ".join(generator.choice(WORDS, size=generator.integers(1, 12), p=shares / shares.sum()))
        for _ in range(rows)
    ]


def dense_scores(index: LexicalIndex, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Mean score of some texts with every row, by scoring every row."""
    total = index.scores(texts[0]).copy()
    for text in texts[1:]:
        total += index.scores(text)
    total /= len(texts)
    return total


def best_of_all(index: LexicalIndex, texts: Sequence[str], count: int) -> list[int]:
    """What the dense scores say."""
    every = dense_scores(index, texts)
    best = np.argsort(-every, kind="stable")[:count]
    return [int(row) for row in best if every[row] > 0]


@cache
def whole() -> LexicalIndex:
    """Built when it is first searched: bm25s is slow to import."""
    return LexicalIndex.build(corpus(400, seed=1))


@settings(max_examples=60)
@given(
    texts=st.lists(
        st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=12).map(" ".join), min_size=1, max_size=3
    ),
    count=st.integers(1, 500),
)
def test_as_if_every_row_were_scored(texts: list[str], count: int) -> None:
    """The same rows in the same order, copies and ties included, and the same scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_search, "BLOCK_ROWS", 150)  # several blocks, the last one shorter
        found = whole().search(texts, count)
    assert found.tolist() == best_of_all(whole(), texts, count)
    np.testing.assert_array_equal(whole().scores_of(texts, found), dense_scores(whole(), texts)[found])


def test_common_words_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare word decides: the list of a word that the whole corpus has is looked into at the rows found only."""
    texts = [f"the cat number{row}" for row in range(300)] + ["the zebra"] * 40 + ["a dog"] * 40
    index, walked = LexicalIndex.build(texts), set[int]()
    monkeypatch.setattr(word_search, "BLOCK_ROWS", 100)
    whole = word_search._summed

    def noted(postings: Postings, words: Sequence[tuple[int, np.float32]], first: int, **least: float) -> Any:
        walked.update(word for word, _ in words)
        return whole(postings, words, first, **least)

    monkeypatch.setattr(word_search, "_summed", noted)
    assert index.search(["the zebra of the desert"], 10).tolist() == list(range(300, 310))
    assert walked == {index._index.vocab_dict["zebra"]}


def test_words_are_numbered_as_they_are_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same corpus gives the same files in every process, however many texts are read at once."""
    monkeypatch.setattr(lexical, "_TEXTS", 2)
    index = LexicalIndex.build(["b a b", "c a", "😀", "d b"])._index
    assert list(index.vocab_dict.items()) == [("b", 0), ("a", 1), ("c", 2), ("d", 3), ("", 4)]
    assert index.scores["indices"].tolist() == [0, 3, 0, 1, 1, 3]


def test_nothing_known(tmp_path: Path) -> None:
    """A query without a known word finds nothing, in an opened index too."""
    LexicalIndex.build(["one two", "two three"]).save(tmp_path / "lexical")
    index = LexicalIndex.load(tmp_path / "lexical")
    for text in ("", "😀", "nothing of it"):
        assert index.search([text], 5).tolist() == []
        assert index.scores_of([text], np.array([0, 1])).tolist() == [0.0, 0.0]
    assert isinstance(index._postings.data, np.memmap)


def test_no_list_of_a_word_is_copied() -> None:
    """A word that a million rows have is looked into, not turned into another type: a search holds one block of sums."""
    count = 1_000_000
    data = np.linspace(1.0, 0.1, count, dtype=np.float32)
    postings = Postings(data, np.arange(count, dtype=np.int32), np.array([0, count], np.int32), count)
    assert postings.highest.tolist() == [1.0]
    tracemalloc.start()
    try:
        assert word_search.could_be_best(postings, [0], 3)[:3].tolist() == [0, 1, 2]
        assert word_search.scores_of(postings, [0], np.array([0, 7]))[0] == 1.0
        highest = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert highest < 2 * count, "an array of eight bytes for each row takes 8,000,000"
