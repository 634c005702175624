"""BM25 written in parts: byte for byte the files that bm25s writes of the whole corpus."""

import random
from pathlib import Path

import pytest

from wherefrom.attribution.retrieval import lexical, word_scores
from wherefrom.attribution.retrieval.lexical import LexicalIndex, write_lexical


def drawn(rows: int, *, seed: int) -> list[str]:
    """Texts of words whose frequencies fall as those of a language; some have none."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(60)]
    weights = [1 / place for place in range(1, 61)]
    return [" ".join(draw.choices(words, weights, k=draw.choice([0, 1, 5, 30]))) for _ in range(rows)]


def by_bm25s(texts: list[str], folder: Path) -> None:
    """As bm25s does it, with words numbered as they are met."""
    import bm25s

    vocabulary: dict[str, int] = {}
    numbers = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in lexical._words(texts)
    ]
    if not vocabulary:
        numbers = [[vocabulary.setdefault("", 0)] for _ in texts]
    index = bm25s.BM25()
    index.index((numbers, vocabulary), show_progress=False)
    index.save(str(folder), show_progress=False)


CORPORA = {
    "drawn": drawn(300, seed=1),
    "first rows without a word": ["😀", "", *drawn(40, seed=2)],
    "a word that every row has": [f"the {text} the" for text in drawn(120, seed=3)],
    "no word at all": ["😀", "", "😀 😀"],
    "one row": ["one two one"],
}


@pytest.mark.parametrize("texts", CORPORA.values(), ids=list(CORPORA))
@pytest.mark.parametrize(
    "sizes", [(1 << 18, 4096, 1 << 20), (50, 7, 1 << 20), (1, 1, 1), (10, 4096, 40)], ids=str
)
def test_bytes_of_bm25s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], sizes: tuple[int, int, int]
) -> None:
    """Whatever is held at once: blocks of texts, runs and ranges of words do not show in the files, and no other file is left."""
    merged, block, chars = sizes
    monkeypatch.setattr(word_scores, "MERGED_ENTRIES", merged)
    monkeypatch.setattr(lexical, "_TEXTS", block)
    monkeypatch.setattr(lexical, "_CHARS", chars)
    by_bm25s(texts, tmp_path / "whole")
    write_lexical(iter(texts), tmp_path / "parts")
    whole, parts = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("whole", "parts")
    )
    assert parts == whole


def test_index_in_memory_needs_no_folder() -> None:
    """Its files are gone, and it goes on finding."""
    index = LexicalIndex.build(["one two", "two three", "three"])
    assert index.search(["three two"], 3).tolist() == [1, 2, 0]
