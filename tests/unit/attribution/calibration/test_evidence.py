"""The features of citations against sums that are written out."""

import math

import numpy as np
import pytest

from tests.tiny import opened, tiny_rows
from wherefrom.attribution.calibration.evidence import (
    FEATURES,
    CandidateParts,
    distances_of,
    evidence_features,
    words_of,
)

RARITY = {"the": 0.1, "sky": 1.0, "is": 0.2, "green": 3.0, "what": 0.3, "colour": 2.0, "blue": 2.5}


def rarity(word: str) -> float:
    """Rarity of a word; an unknown one is the rarest."""
    return RARITY.get(word, 4.0)


def features(completion: str = "The sky is green") -> dict[str, np.ndarray]:
    """Features of two citations by name."""
    parts = CandidateParts(
        shown=np.array([0.5, 2.0, 1.5], dtype=np.float32),
        bm25=np.array([1.0, 8.0, 4.0], dtype=np.float32),
        similarity=np.array([0.9, 0.2, 0.1], dtype=np.float32),
        influence=np.array([0.0, 0.3, -0.1], dtype=np.float32),
        retrieval=np.array([0.0, 0.25, 0.0], dtype=np.float32),
    )
    rows = evidence_features(
        "What colour?",
        completion,
        examples=[("What colour", "the sky is blue"), ("", "green")],
        places=[1, 0],
        parts=parts,
        loss=2.5,
        rarity=rarity,
    )
    return dict(zip(FEATURES, rows.T, strict=True))


def test_features_are_the_written_sums() -> None:
    """Every feature of both citations."""
    found = features()
    said, asked = 0.1 + 1.0 + 0.2 + 3.0, 0.3 + 2.0
    expected = {
        "completion_share": [(0.1 + 1.0 + 0.2) / said, 3.0 / said],
        "prompt_share": [1.0, 0.0],
        "example_share": [(0.1 + 1.0 + 0.2) / (0.1 + 1.0 + 0.2 + 2.5), 1.0],
        "rare_share": [(1.0 + 0.2) / (3.0 + 1.0 + 0.2), 3.0 / (3.0 + 1.0 + 0.2)],
        "bm25_share": [8.0 / (said + asked), 1.0 / (said + asked)],
        "run_share": [3 / 4, 1 / 4],
        "similarity": [0.2, 0.9],
        "influence": [0.3, 0.0],
        "retrieval": [0.25, 0.0],
        "agreement": [2 / 3, 1 / 3],
        "lead": [0.5, -1.5],
        "loss": [2.5, 2.5],
    }
    assert set(expected) == set(FEATURES)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_completion_without_a_word() -> None:
    """Nothing to share is a share of nothing, not an error."""
    found = features("😀")
    assert found["completion_share"].tolist() == [0.0, 0.0]
    assert found["run_share"].tolist() == [0.0, 0.0]
    assert all(np.isfinite(values).all() for values in found.values())


def test_distances() -> None:
    """Logarithms of the squared lengths, and minus the mean of the five strongest influences."""
    influence = np.array([0.1, 0.5, 0.2, 0.3, 0.4, -0.9], dtype=np.float32)
    assert distances_of(math.e, 1.0, influence).tolist() == pytest.approx([1.0, 0.0, -0.3])
    assert np.isfinite(distances_of(0.0, 0.0, influence[:0])).all()


def test_rarity_of_the_lexical_index() -> None:
    """The idf of BM25, counted in the corpus."""
    bundle = opened()
    texts = ["\n".join(turn["content"] for turn in row["messages"]) for row in tiny_rows(len(bundle.store))]
    holding = [set(words_of(text)) for text in texts]
    for word in ("the", "refund", "no-such-word"):
        count = sum(word in words for words in holding)
        expected = math.log(1 + (len(texts) - count + 0.5) / (count + 0.5))
        assert bundle.lexical.rarity(word) == pytest.approx(expected), word
