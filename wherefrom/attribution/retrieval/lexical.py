"""BM25 over prompt and completion (bm25s; Robertson & Zaragoza 2009): the baseline that is always shown and always fused.

The scores of every word and row are computed when the index is built (bm25s) and mapped when it is opened. A search holds no array over all rows
(`word_search`); what it finds has the scores that scoring all of them would give.

Look-alike letters are folded (`folding`), or a single Cyrillic vowel per word would hide a text from the search. Stop words stay in: on teacher queries of a small model that gave recall@1 .825 against .815 without them.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.retrieval.folding import fold
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.attribution.retrieval.word_search import Postings, could_be_best, scores_of
from wherefrom.errors import BundleCorrupt

Scores = npt.NDArray[np.float32]

#: Texts whose words are held as text at once.
_TEXTS = 4096
_WORD = r"(?u)\w+"


class LexicalIndex:
    """BM25 scores of a query text against the corpus."""

    def __init__(self, index: Any) -> None:
        self._index = index
        held = index.scores
        self._postings = Postings(held["data"], held["indices"], held["indptr"], int(held["num_docs"]))

    @classmethod
    def build(cls, texts: Sequence[str]) -> "LexicalIndex":
        """Index one text per training example, in corpus order."""
        # numbered as they are met: bm25s itself numbers words in another order in every process, and a bundle is named by its bytes
        vocabulary: dict[str, int] = {}
        numbers = [
            [vocabulary.setdefault(word, len(vocabulary)) for word in words]
            for first in range(0, len(texts), _TEXTS)
            for words in _words(texts[first : first + _TEXTS])
        ]
        if not vocabulary:  # bm25s does not take an empty vocabulary: a corpus of nothing but emoji
            numbers = [[vocabulary.setdefault("", 0)] for _ in texts]
        index = _bm25s().BM25()
        index.index((numbers, vocabulary), show_progress=False)
        return cls(index)

    @classmethod
    def load(cls, folder: Path) -> "LexicalIndex":
        """Open what `save` wrote."""
        try:
            return cls(_bm25s().BM25.load(str(folder), load_corpus=False, mmap=True))
        except (OSError, ValueError, KeyError) as error:
            raise BundleCorrupt(f"{folder}: not a lexical index: {error}") from error

    def save(self, folder: Path) -> None:
        """Write the index as `.npy` and `.json` files."""
        self._index.save(str(folder), show_progress=False)

    def scores(self, text: str) -> Scores:
        """BM25 score of every training example, `[N]`; zeros where no word is known."""
        words = _words([text])[0]
        if not words:  # bm25s does not take an empty query: only emoji or punctuation
            return np.zeros(self._index.scores["num_docs"], dtype=np.float32)
        scores: Scores = self._index.get_scores(words).astype(np.float32)
        return scores

    def search(self, texts: Sequence[str], count: int) -> Rows:
        """The `count` best rows for some texts, by the mean of their scores, best first; rows without a word of theirs are left out.

        Equal scores stand in the order of their rows.
        """
        words = [self._known(text) for text in texts]
        near = could_be_best(self._postings, [word for some in words for word in some], count)
        scores = self._mean_of(words, near)
        found: Rows = near[np.argsort(-scores, kind="stable")[:count]]
        return found

    def scores_of(self, texts: Sequence[str], rows: Rows) -> Scores:
        """Mean BM25 score of some texts with the given rows, `[K]`; bit for bit those of `scores`."""
        return self._mean_of([self._known(text) for text in texts], rows)

    def _mean_of(self, words: Sequence[Sequence[int]], rows: Rows) -> Scores:
        total = scores_of(self._postings, words[0], rows)
        for some in words[1:]:
            total += scores_of(self._postings, some, rows)
        total /= len(words)
        return total

    def _known(self, text: str) -> list[int]:
        """Numbers of a text's words, in order and with repetitions; words that no row has are left out."""
        known: list[int] = self._index.get_tokens_ids(_words([text])[0])
        return known

    def rarity(self, word: str) -> float:
        """BM25's inverse document frequency of a word in lower case, ln(1 + (N - n + .5) / (n + .5)); n = 0 for an unknown word."""
        starts = self._index.scores["indptr"]
        token = self._index.vocab_dict.get(word)
        holding = 0 if token is None else int(starts[token + 1]) - int(starts[token])
        return math.log1p((self._index.scores["num_docs"] - holding + 0.5) / (holding + 0.5))


def _bm25s() -> Any:
    """The library, imported when a corpus is first searched: it brings scipy."""
    import bm25s  # noqa: PLC0415 - slow to import

    return bm25s


def _words(texts: Sequence[str]) -> list[list[str]]:
    words: list[list[str]] = _bm25s().tokenize(
        [fold(text) for text in texts],
        token_pattern=_WORD,
        stopwords=[],
        return_ids=False,
        show_progress=False,
    )
    return words
