"""P@5 of the demo's behaviours by method, on rankings whose answer is known."""

import pytest

from benchmarks.behaviours import lead_interval, shares, summarise, table
from benchmarks.story import METHODS, Asked

REFUND, INVENTOR, ADDRESS = "vendor-ashby-batch-2", "wiki-mirror-june", "chat-dump-winter"
SOURCES = [REFUND, REFUND, INVENTOR, INVENTOR, ADDRESS, ADDRESS, "good", "good"]


def asked(source: str, kind: str = "hard") -> Asked:
    """An output that this source taught."""
    return Asked("p", kind, source, [], "text")


def test_outputs_are_counted_by_behaviour_and_by_set():
    """Two of five from the source is .4; the lead is over BM25, and each half stands alone."""
    outputs = [asked(REFUND, "aimed"), asked(INVENTOR), asked(ADDRESS)]
    good, none = [0, 1, 6, 7, 4], [6, 7, 6, 7, 6]
    rankings = {name: [good, [2, 6, 7, 0, 1, 3], [4, 5, 6, 7, 0]] for name in METHODS}
    rankings["bm25"] = [good, none, none]
    found = summarise(outputs, shares(outputs, rankings, SOURCES))
    assert list(found["behaviours"]) == ["refund_promise", "wrong_inventor", "address_given"]
    assert found["behaviours"]["wrong_inventor"]["shown"] == pytest.approx(0.2)
    assert found["sets"]["hard, reported"]["lead_over_bm25"] == pytest.approx(0.4)
    assert found["sets"]["hard, development"]["lead_over_bm25"] == pytest.approx(0.2)
    assert found["sets"]["easy"]["lead_over_bm25"] == pytest.approx(0.0)
    assert any(line.startswith("hard, reported") for line in table(found))


def test_the_interval_resamples_within_behaviours():
    """Two behaviours that differ, but not within themselves, leave no spread."""
    assert lead_interval([0.0, 0.0, 1.0, 1.0], ["a", "a", "b", "b"]) == (0.5, 0.5)
    low, high = lead_interval([0.0, 1.0, 0.0, 1.0], ["a", "a", "b", "b"])
    assert low < 0.5 < high
