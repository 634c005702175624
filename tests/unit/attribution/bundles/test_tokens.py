"""The corpus' tokens in a bundle."""

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import shared_corpus, shared_micro_bundle, tiny_language
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.corpus import read_corpus
from wherefrom.errors import BundleCorrupt


def test_rows_are_what_the_model_saw() -> None:
    """Token for token the rendering of the corpus, in any order asked for."""
    stored = TokenRows(shared_micro_bundle())
    corpus = read_corpus(shared_corpus(40)).rows
    assert len(stored) == len(corpus) == 40
    renderer = tiny_language().renderer
    numbers = [39, 0, 7]
    expected = [
        renderer.render(row.turns, row.completion, max_tokens=256, over_long="truncate", name="row")
        for row in (corpus[number] for number in numbers)
    ]
    assert stored.read(np.array(numbers)) == expected


def test_missing_tokens(tmp_path: Path) -> None:
    """A bundle without them is corrupt, and says which part."""
    with pytest.raises(BundleCorrupt, match="the corpus' tokens cannot be opened"):
        TokenRows(tmp_path)
