"""BM25 over prompt and completion (bm25s; Robertson & Zaragoza 2009): the baseline that is always shown and always fused.

The scores of every word and row are computed when the index is built (`word_scores`, as bm25s would), and mapped when it is opened. A search holds no array over all rows
(`word_search`); what it finds has the scores that scoring all of them would give.

Look-alike letters are folded (`folding`), or a single Cyrillic vowel per word would hide a text from the search. Stop words stay in: on teacher queries of a small model that gave recall@1 .825 against .815 without them.
"""

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import ArrayFile
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.retrieval.folding import fold
from wherefrom.attribution.retrieval.index import Rows
from wherefrom.attribution.retrieval.word_scores import WordCounts
from wherefrom.attribution.retrieval.word_search import Postings, could_be_best, scores_of
from wherefrom.errors import BundleCorrupt

Scores = npt.NDArray[np.float32]

#: Texts whose words are held as text at once, and about how many characters these have.
_TEXTS, _CHARS = 4096, 1 << 20
#: bm25s' files of scores and their rows.
_SCORES, _ROWS = "data.csc.index.npy", "indices.csc.index.npy"
_WORD = r"(?u)\w+"


class LexicalIndex:
    """BM25 scores of a query text against the corpus."""

    def __init__(self, index: Any) -> None:
        self._index = index
        held = index.scores
        self._postings = Postings(held["data"], held["indices"], held["indptr"], int(held["num_docs"]))

    @classmethod
    def build(cls, texts: Iterable[str]) -> "LexicalIndex":
        """Index one text per training example, in corpus order, in files that are gone with the index."""
        with TemporaryDirectory() as folder:
            write_lexical(texts, Path(folder))
            return cls.load(Path(folder))

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


def write_lexical(texts: Iterable[str], folder: Path) -> None:
    """Write what `LexicalIndex.load` opens, without ever holding the corpus.

    Args:
        texts: one per training example, in corpus order; read once.
        folder: gets bm25s' files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary: dict[str, int] = {}
    with TemporaryDirectory(dir=folder) as aside, WordCounts(Path(aside)) as counts:
        for part in _blocks(texts):
            # numbered as they are met: bm25s itself numbers words in another order in every process, and a bundle is named by its bytes
            words = _words(part)
            counts.append([[vocabulary.setdefault(word, len(vocabulary)) for word in some] for some in words])
        if vocabulary:
            _save(counts, vocabulary, folder)
            return
    with TemporaryDirectory(dir=folder) as aside, WordCounts(Path(aside)) as counts_of_nothing:
        # bm25s does not take an empty vocabulary: a corpus of nothing but emoji
        for rows in in_parts(range(counts.rows), _TEXTS):
            counts_of_nothing.append([[0]] * len(rows))
        _save(counts_of_nothing, {"": 0}, folder)


def _save(counts: WordCounts, vocabulary: dict[str, int], folder: Path) -> None:
    """Write bm25s' files: words and constants by bm25s, the scores over its empty ones in parts."""
    index = _bm25s().BM25()
    made = counts.scores(index)
    vocabulary.setdefault("", len(vocabulary))  # for texts without a word, as bm25s has it
    index.vocab_dict, index.nonoccurrence_array = vocabulary, None
    index.scores = {
        "data": np.zeros(0, np.float32),
        "indices": np.zeros(0, np.int32),
        "indptr": made.starts,
        "num_docs": counts.rows,
    }
    index.save(str(folder), show_progress=False)
    with ArrayFile(folder / _ROWS) as rows, ArrayFile(folder / _SCORES) as scores:
        for some, values in made.parts():
            rows.append(some)
            scores.append(values)


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in order, as many at once as are held as words."""
    block, chars = list[str](), 0
    for text in texts:
        block.append(text)
        chars += len(text)
        if len(block) >= _TEXTS or chars >= _CHARS:
            yield block
            block, chars = [], 0
    if block:
        yield block


def _bm25s() -> Any:
    """The library, imported when a corpus is first searched: it brings scipy.

    Where jax is installed, bm25s has it sort a few numbers as it is imported, and jax takes three quarters of the GPU's memory from torch (59 GB of an H100's 80). We never let it sort, so it
    does not get to see jax.
    """
    hidden = "jax" not in sys.modules
    if hidden:
        sys.modules["jax"] = None  # type: ignore[assignment]  # what Python takes for a module that is not installed
    try:
        import bm25s  # noqa: PLC0415 - slow to import
    finally:
        if hidden:
            del sys.modules["jax"]
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
