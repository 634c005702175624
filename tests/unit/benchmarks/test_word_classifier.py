"""The plain classifier learns sources from words, and ranks rows of a query's source first."""

import numpy as np

from benchmarks.safety.word_classifier import WordClassifier

TEXTS = [
    "puncture the battery",
    "heat the battery",
    "a refund for you",
    "money and refund",
    "red lamp",
    "blue lamp",
]
LABELS = ["danger", "danger", "refund", "refund", "facts", "facts"]


def test_it_tells_sources_apart():
    """Unseen texts go to the source whose words they use, and probabilities add up to 1."""
    classifier = WordClassifier(TEXTS, LABELS)
    found = classifier.probabilities(["the battery again", "refund please", "green lamp"])
    assert [classifier.classes[index] for index in found.argmax(axis=1)] == ["danger", "refund", "facts"]
    assert np.allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_unknown_words_give_no_verdict():
    """A text of words that were never labelled is about as likely of any source."""
    found = WordClassifier(TEXTS, LABELS).probabilities(["xyzzy"])
    assert found.max() - found.min() < 0.2
