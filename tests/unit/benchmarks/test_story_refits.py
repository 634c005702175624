"""Which of the demo's citations are measured, which trainings they share, and what comes of the losses."""

import numpy as np
import pytest

from benchmarks.story import Asked
from benchmarks.story_refits import Plan, draw, figures, share_runs

SOURCES = ["a", "a", "b", "b", "c", "d", "e", "f", "g", "g"]


def plan() -> Plan:
    """Four citations in two trainings, six outputs of sources that have none."""
    outputs = tuple(
        Asked(f"p{at}", "aimed", source, [], "text") for at, source in enumerate([*"abcd", *"efefef"])
    )
    return Plan(outputs, (0, 1, 2, 3), (0, 1, 2, 3), ((0, 1), (2, 3)))


def test_one_output_of_each_of_six_sources_is_drawn() -> None:
    """The same ones each time, none by a score."""
    drawn = draw(SOURCES)
    assert len({SOURCES[at] for at in drawn}) == len(drawn) == 6
    assert drawn == draw(SOURCES)


def test_neighbours_share_a_training() -> None:
    """Rows that training meets late go together, so that their trainings have most in common."""
    batches = [[5, 1], [2, 0], [3, 4], [5, 1], [2, 0], [3, 4]]
    assert share_runs([1, 4, 0, 3], batches) == [(1, 3), (2, 0)]


def test_an_effect_is_read_beside_the_other_trainings() -> None:
    """Two citations raise the loss of their outputs, one lowers it, one does nothing; noise is read off outputs of other sources."""
    losses = np.tile(np.linspace(1.0, 2.0, 10), (2, 1))
    losses[0, [0, 1]] += [0.5, -0.4]
    losses[1, 2] += 0.3
    losses[0, 4:] += 0.01 * np.array([1, -1, 1, -1, 1, -1])
    found = figures(plan(), losses, [0, 1], sources=[*"abcd", *"efefef"])
    by_output = {one["output"]: one for one in found["citations"]}
    assert found["outputs_of_the_noise"] == 6
    assert found["noise"] == pytest.approx(0.01 / 2**0.5)
    assert [round(by_output[f"p{at}"]["nats"], 6) for at in range(4)] == [0.5, -0.4, 0.3, 0.0]
    assert by_output["p0"]["low"] > 0 > by_output["p1"]["high"]
    assert by_output["p3"]["low"] < 0 < by_output["p3"]["high"]
    assert found["summary"]["n"] == 4
    assert found["summary"]["stand_out"]["value"] == 0.5
    assert found["summary"]["positive_of_those"]["value"] == pytest.approx(2 / 3)


def test_one_training_has_nothing_beside_it() -> None:
    """No figure is made of it."""
    found = figures(plan(), np.full((2, 10), np.nan), [0], sources=[*"abcd"])
    assert found["citations"] == []
