"""Metrics of provenance agree with plain loops and with cases whose answer is known."""

import math

import numpy as np
import pytest

from benchmarks.safety.near_duplicates import nearest_overlap, shingles
from wherefrom.evaluation.estimates import mean_and_interval
from wherefrom.evaluation.provenance import average_precision, precision_at, share_at

RANDOM = np.random.default_rng(5)
SCORES = RANDOM.normal(size=(6, 30)).astype(np.float32)
RELEVANT = RANDOM.random((6, 30)) < 0.2
RELEVANT[:, 3] = True


def loop_precision(scores, relevant, count):
    """Precision of one query, row by row."""
    best = sorted(range(len(scores)), key=lambda row: -scores[row])[:count]
    return sum(relevant[row] for row in best) / min(count, sum(relevant))


def loop_average_precision(scores, relevant):
    """AUPRC of one query, place by place."""
    order, found, total = sorted(range(len(scores)), key=lambda row: -scores[row]), 0, 0.0
    for place, row in enumerate(order, start=1):
        if relevant[row]:
            found += 1
            total += found / place
    return total / found


def test_precision_is_the_loop():
    """Each query's precision is that of a plain loop."""
    expected = [loop_precision(one, flags, 5) for one, flags in zip(SCORES, RELEVANT, strict=True)]
    assert precision_at(SCORES, RELEVANT, 5) == pytest.approx(expected)


def test_precision_counts_what_the_corpus_allows():
    """Two relevant rows on top are all there is to find: precision@5 is 1."""
    scores = np.arange(10, 0, -1, dtype=np.float32)[None]
    relevant = np.zeros((1, 10), bool)
    relevant[0, :2] = True
    assert precision_at(scores, relevant, 5)[0] == 1.0


def test_average_precision_is_the_loop():
    """AUPRC is the mean precision at the places of the relevant rows."""
    expected = [loop_average_precision(one, flags) for one, flags in zip(SCORES, RELEVANT, strict=True)]
    assert average_precision(SCORES, RELEVANT) == pytest.approx(expected)


def test_share_of_flagged_rows():
    """Of the three best rows one is flagged."""
    scores = np.array([[0.9, 0.1, 0.8, 0.7, 0.2]], dtype=np.float32)
    assert share_at(scores, np.array([False, True, True, False, True]), 3)[0] == pytest.approx(1 / 3)


def test_interval_holds_the_mean_and_shrinks():
    """More queries give a narrower interval around the same mean."""
    few, many = np.tile([0.0, 1.0], 10), np.tile([0.0, 1.0], 1000)
    for values in (few, many):
        mean, low, high = mean_and_interval(values)
        assert low < mean == 0.5 < high
    assert mean_and_interval(many)[2] - mean_and_interval(many)[1] < 0.2 * (
        mean_and_interval(few)[2] - mean_and_interval(few)[1]
    )
    assert math.isnan(mean_and_interval(np.array([]))[0])


def test_overlap_is_the_largest_jaccard_index():
    """The nearest text decides, as a plain double loop over sets says."""
    texts = ["the lamp in the hall is red and new", "nothing alike here at all"]
    others = ["the lamp in the hall is blue and new", "the lamp in the garden", "short one"]
    expected = [
        max(len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b)) for b in others) for a in texts
    ]
    assert nearest_overlap(texts, others) == pytest.approx(expected)
    assert expected[0] > 0.3
    assert expected[1] == 0.0


def test_a_text_overlaps_itself_wholly():
    """Case and white space do not hide a copy."""
    assert nearest_overlap(["One  two THREE four"], ["one two three four"])[0] == 1.0
