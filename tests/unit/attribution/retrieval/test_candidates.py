"""Merging the lists of the first stage; how many candidates a corpus gets; opponents are searched for too."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.retrieval.candidates import (
    Indexes,
    Sought,
    default_candidates,
    find_candidates,
    merge,
)
from wherefrom.attribution.retrieval.index import ExactIndex
from wherefrom.attribution.retrieval.lexical import LexicalIndex

lists_of_rows = st.lists(
    st.tuples(st.lists(st.integers(0, 40), max_size=30, unique=True), st.integers(1, 7)), max_size=5
)


@given(lists_of_rows, st.integers(0, 60))
def test_merge(lists: list[tuple[list[int], int]], count: int) -> None:
    """Distinct rows of the lists, never more than asked for, never fewer than there are."""
    found = merge([(np.array(rows, dtype=np.int64), turns) for rows, turns in lists], count).tolist()
    every = {row for rows, _ in lists for row in rows}
    assert len(found) == len(set(found)) == min(count, len(every))
    assert set(found) <= every
    for rows, _ in lists:
        kept = [row for row in rows if row in found]
        assert kept == rows[: len(kept)] or len(found) == count or set(rows) <= set(found)


def test_merge_takes_turns() -> None:
    """Each list gives its number of new rows per round; what another list already gave does not count."""
    first, second = np.array([1, 2, 3, 4, 5]), np.array([2, 7, 8, 9])
    assert merge([(first, 2), (second, 1)], 6).tolist() == [1, 2, 7, 3, 4, 8]
    assert merge([(first, 2), (second, 1)], 100).tolist() == [1, 2, 7, 3, 4, 8, 5, 9]


@pytest.mark.parametrize(
    ("examples", "count"), [(1, 1), (63, 63), (64, 64), (1280, 64), (2000, 100), (100_000, 256)]
)
def test_default_count(examples: int, count: int) -> None:
    """5 % of the corpus, at least 64, at most 256, never more than there are."""
    assert default_candidates(examples) == count


def test_every_list_contributes() -> None:
    """The nearest, the most opposed, the most similar and the lexically best row are all among a few candidates."""
    vectors = np.zeros((40, 4), dtype=np.float32)
    vectors[:, 3] = 1e-3
    vectors[5], vectors[9] = [1, 0, 0, 0], [-1, 0, 0, 0]
    states = np.zeros((40, 4), dtype=np.float32)
    states[20] = [0, 1, 0, 0]
    texts = [f"word{row} common" for row in range(40)]
    encoded = np.zeros((40, 2), dtype=np.float32)
    encoded[27] = [1, 0]
    sought = Sought(
        np.array([1, 0, 0, 0], dtype=np.float32),
        np.array([0, 1, 0, 0], dtype=np.float32),
        ("Common, word33!",),
        np.array([1, 0], dtype=np.float32),
    )
    indexes = Indexes(ExactIndex(vectors), ExactIndex(states), LexicalIndex.build(texts), ExactIndex(encoded))
    found = find_candidates(sought, indexes, count=13)
    assert {5, 9, 20, 27, 33} <= set(found.rows.tolist())
    assert len(found.rows) == len(found.bm25) == 13
    assert int(found.rows[found.bm25.argmax()]) == 33


def test_text_without_a_known_word() -> None:
    """BM25 says nothing; the others still do."""
    vectors = np.eye(5, dtype=np.float32)
    lexical = LexicalIndex.build([f"word{row}" for row in range(5)])
    for text in ("?!", "", "unheard of"):
        indexes = Indexes(ExactIndex(vectors), ExactIndex(vectors), lexical)
        found = find_candidates(Sought(vectors[2], vectors[3], (text,)), indexes, count=5)
        assert found.bm25.tolist() == [0.0] * 5


def test_corpus_without_a_word(tmp_path: Path) -> None:
    """A corpus of emoji has nothing for BM25, and that is no error; nor is its file."""
    LexicalIndex.build(["😀", "😀😀"]).save(tmp_path / "lexical")
    for text in ("refund", "😀"):
        assert LexicalIndex.load(tmp_path / "lexical").scores(text).tolist() == [0.0, 0.0]
