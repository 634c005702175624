"""`benchmarks.deep_bank.groups`: the effect of a whole source on its own outputs, beside sources of as many rows."""

import numpy as np
import pytest

from benchmarks.deep_bank.groups import Losses, bad_sources, figures, table
from benchmarks.deep_bank.material import read_bank_queries, read_rows

SOURCES = ["one", "two", "three", "four"]
ASKED = ["one", "two", "one", "fact"]


def losses(effect: float, *, seeds: int = 1) -> Losses:
    """Losses `[S, 4, 4]`: leaving out `one` costs its outputs the effect; groups differ by up to .03 nats otherwise."""
    noise = np.array([0.0, 0.01, 0.02, 0.03])
    found: Losses = np.tile(noise[:, None], (seeds, 1, len(ASKED))) + np.arange(seeds)[:, None, None]
    found[:, 0, [0, 2]] += effect
    return found


def test_the_four_bad_sources_are_of_one_size_and_two_have_outputs() -> None:
    """So each is a control for the others; nothing was matched after the fact."""
    sources = bad_sources()
    assert [len(rows) for rows in sources.values()] == [7, 7, 7, 7]
    asked = {query.source for query in read_bank_queries(read_rows()) if query.kind == "bad"}
    assert len(asked & set(sources)) == 2


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_source_that_taught_its_outputs_stands_out(seeds: int) -> None:
    """With the size of its effect, of all its outputs; interval and z say the same, and what seeds share cancels."""
    found = figures(losses(0.5, seeds=seeds), SOURCES, ASKED)
    assert set(found) == {"one", "two"}
    own = found["one"]
    assert own["outputs"] == 2
    assert own["nats"] == pytest.approx(0.5 - 0.02)
    assert own["low"] > 0
    assert own["z"] > 1.96


@pytest.mark.parametrize("effect", [0.0, 0.02, 0.05, 0.06, 0.07, 0.1, 0.3])
def test_interval_and_z_agree(effect: float) -> None:
    """Zero is outside the interval exactly where |z| > 1.96."""
    own = figures(losses(effect), SOURCES, ASKED)["one"]
    assert (own["low"] > 0 or own["high"] < 0) == (abs(own["z"]) > 1.96)


def test_the_table_names_each_source() -> None:
    """One line each, after the heading."""
    told = table({"seeds": 1, "sources": figures(losses(0.5), SOURCES, ASKED)})
    assert [line.split()[0] for line in told[-2:]] == ["one", "two"]
