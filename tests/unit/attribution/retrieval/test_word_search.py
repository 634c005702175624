"""The search that does not score every row finds what scoring every row finds, with the same scores bit for bit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wherefrom.attribution.retrieval import lexical
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


def best_of_all(index: LexicalIndex, texts: Sequence[str], count: int) -> list[int]:
    """What the dense scores say."""
    every = index.mean_scores(texts)
    best = np.argsort(-every, kind="stable")[:count]
    return [int(row) for row in best if every[row] > 0]


@pytest.fixture
def sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A corpus of any size counts as large."""
    monkeypatch.setattr(lexical, "DENSE_ROWS", 0)


INDEX = LexicalIndex.build(corpus(400, seed=1))


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
        patch.setattr(lexical, "DENSE_ROWS", 0)
        found = INDEX.search(texts, count)
    assert found.tolist() == best_of_all(INDEX, texts, count)
    np.testing.assert_array_equal(INDEX.scores_of(texts, found), INDEX.mean_scores(texts)[found])


@pytest.mark.usefixtures("sparse")
def test_common_words_are_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rare word decides: the list of a word that half of the corpus has is only looked into at the rows found."""
    texts = [f"the cat number{row}" for row in range(300)] + ["the zebra"] * 40 + ["a dog"] * 40
    index = LexicalIndex.build(texts)
    gathered: list[int] = []
    whole = Postings.of

    def noted(self: Postings, word: int) -> object:
        gathered.append(word)
        return whole(self, word)

    monkeypatch.setattr(Postings, "of", noted)
    found = index.search(["the zebra of the desert"], 10)
    assert found.tolist() == list(range(300, 310))
    walked = gathered[: gathered.index(index._index.vocab_dict["zebra"]) + 1]
    assert index._index.vocab_dict["the"] not in walked


@pytest.mark.usefixtures("sparse")
def test_nothing_known(tmp_path: Path) -> None:
    """A query without a known word finds nothing, in an opened index too."""
    LexicalIndex.build(["one two", "two three"]).save(tmp_path / "lexical")
    index = LexicalIndex.load(tmp_path / "lexical")
    for text in ("", "😀", "nothing of it"):
        assert index.search([text], 5).tolist() == []
        assert index.scores_of([text], np.array([0, 1])).tolist() == [0.0, 0.0]
    assert isinstance(index._postings.data, np.memmap)
