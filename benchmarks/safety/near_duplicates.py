"""Texts that are nearly the same: word n-gram sets A, B with a large Jaccard index |A n B| / |A u B|."""

from collections.abc import Sequence

import numpy as np

from wherefrom.evaluation.estimates import Values


def shingles(text: str, length: int = 3) -> frozenset[tuple[str, ...]]:
    """The set of word n-grams of a text in lower case; a shorter text is one n-gram."""
    words = text.lower().split()
    if len(words) <= length:
        return frozenset({tuple(words)})
    return frozenset(tuple(words[at : at + length]) for at in range(len(words) - length + 1))


def nearest_overlap(texts: Sequence[str], others: Sequence[str]) -> Values:
    """Largest Jaccard index of each text's word 3-grams with those of any other text, `[len(texts)]` in [0, 1]."""
    stored = [shingles(text) for text in others]
    places: dict[tuple[str, ...], list[int]] = {}
    for index, grams in enumerate(stored):
        for gram in grams:
            places.setdefault(gram, []).append(index)
    best = np.zeros(len(texts))
    for row, text in enumerate(texts):
        grams = shingles(text)
        shared: dict[int, int] = {}
        for gram in grams:
            for index in places.get(gram, ()):
                shared[index] = shared.get(index, 0) + 1
        best[row] = max(
            (count / (len(grams) + len(stored[index]) - count) for index, count in shared.items()),
            default=0.0,
        )
    return best
