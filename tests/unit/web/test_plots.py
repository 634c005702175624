"""Plots of scores, confidence and time: what stands where, and that every answer has one that stays inside."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db.reviewing.agreement import Bin
from tests.unit.records.test_plain_sentence import citation, detail
from web.drawing.plots import LEFT, SQUARE, TOP, WIDTH, calibration_plot, score_plot, time_plot
from wherefrom.records import AuditDetail

START = datetime(2026, 1, 1, tzinfo=UTC)


def audit_detail(**fields: Any) -> AuditDetail:
    """An answered audit with these citations."""
    return detail(noise_best=None).model_copy(update=fields)


def test_scores_stand_in_order_beside_the_noise() -> None:
    """Rank from top to bottom, influence from left to right; the band lies around zero."""
    found = audit_detail(
        citations=tuple(citation(rank, influence_score=0.5 - 0.1 * rank) for rank in (1, 2, 3, 4)),
        opponents=(citation(-1, influence_score=-0.3),),
        noise_level=0.12,
        noise_best=0.2,
    )
    plot = score_plot(found)
    assert plot is not None
    assert [one.rank for one in plot.dots] == [1, 2, 3, 4, -1]
    assert [one.x for one in plot.dots] == sorted((one.x for one in plot.dots), reverse=True)
    assert [one.y for one in plot.dots] == sorted(one.y for one in plot.dots)
    assert plot.band is not None
    assert plot.best is not None
    assert (plot.band[0] + plot.band[1]) / 2 == pytest.approx(plot.zero)
    assert plot.dots[3].x < plot.band[1] < plot.best < plot.dots[1].x
    assert all(LEFT <= x <= WIDTH for x in (*plot.band, plot.best, *(one.x for one in plot.dots)))
    assert 4 <= len(plot.ticks) <= 9


@pytest.mark.parametrize("scores", [(0.0, 0.0), (1e-9, 2e-9), (-1.0, 1.0), (0.3, 0.3, 0.3), (1e4, -1e4)])
def test_every_answer_with_scores_has_a_plot(scores: tuple[float, ...]) -> None:
    """Also without noise, without a spread, and with scores of any size."""
    plot = score_plot(
        audit_detail(
            citations=tuple(citation(rank, influence_score=one) for rank, one in enumerate(scores, 1))
        )
    )
    assert plot is not None
    assert plot.band is None
    assert all(LEFT <= one.x <= WIDTH for one in plot.dots)
    assert 1 <= len(plot.ticks) <= 10


@pytest.mark.parametrize("width", [0.001 * number for number in range(100, 1100, 5)])
def test_a_range_of_any_width_has_ticks(width: float) -> None:
    """Also one that is just short of a power of ten."""
    scores = enumerate((0.0, width), 1)
    plot = score_plot(
        audit_detail(citations=tuple(citation(rank, influence_score=one) for rank, one in scores))
    )
    assert plot is not None
    assert 3 <= len(plot.ticks) <= 10


def test_without_exact_scores_there_is_no_plot() -> None:
    """One score alone, or none, is no picture."""
    assert score_plot(audit_detail(citations=(citation(1, influence_score=None),))) is None
    assert score_plot(audit_detail(citations=(citation(1, influence_score=0.4),))) is None


def a_bin(stated: float | None, confirmed: int, judged: int) -> Bin:
    """Citations of one range of confidence."""
    return Bin("x", stated, judged, confirmed, confirmed)


def test_what_confidence_says_rightly_lies_on_the_diagonal() -> None:
    """Above it people confirm more than was stated; an empty range has no point."""
    plot = calibration_plot([a_bin(0.5, 5, 10), a_bin(0.9, 1, 10), a_bin(None, 0, 0)], [a_bin(0.2, 9, 10)])
    assert plot is not None
    right, too_sure = plot.people
    assert right.x - LEFT == pytest.approx(TOP + SQUARE - right.y)
    assert too_sure.x - LEFT > TOP + SQUARE - too_sure.y
    [measured] = plot.measured
    assert measured.x - LEFT < TOP + SQUARE - measured.y
    for one in (right, too_sure, measured):
        assert plot.base >= one.whisker[0] > one.y > one.whisker[1] >= plot.top
    assert calibration_plot([a_bin(None, 0, 0)], []) is None


def test_outputs_are_stacked_by_source() -> None:
    """The highest stretch fills the plot, sources stand in one order everywhere, and nothing is lost."""
    edges = [START + timedelta(days=one) for one in range(4)]
    received = [
        (START, "a"),
        (START, "b"),
        (START, "a"),
        (START + timedelta(days=2, hours=3), None),
        (edges[-1], "b"),
    ]
    plot = time_plot(received, edges)
    assert plot is not None
    assert [one.outputs for one in plot.stretches] == [3, 0, 2]
    first = plot.stretches[0].pieces
    assert [(one.source, one.outputs) for one in first] == [("a", 2), ("b", 1)]
    assert first[1].y == pytest.approx(TOP)
    assert sum(one.height for one in first) == pytest.approx(plot.base - TOP)
    assert {one.source for one in plot.stretches[2].pieces} == {"b", "nothing cited"}
    assert time_plot([], edges) is None
