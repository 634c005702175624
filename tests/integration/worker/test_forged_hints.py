"""Whoever can write to Redis can send hints: those that name what is not there leave no trace but a short line."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from tasks.hint import work_hint
from tasks.measure import work_measure_hint
from tests.overlap_engine import OverlapEngine
from wherefrom.messages import LARGEST_ID
from worker.pool.measurer_runtime import MeasurerRuntime
from worker.pool.runtime import Runtime

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

FORGED: list[Any] = [
    *(
        {"version": 1, "bundle_id": number}
        for number in (999, 2**31, LARGEST_ID, 2**63, 2**64, 2**70, 10**4000)
    ),
    *(
        {"version": 1, "bundle_id": number}
        for number in (0, -1, -(2**63), 1.5, float("inf"), None, True, [1], {"a": 1})
    ),
    {"version": 1, "bundle_id": "9" * 100_000},
    {"version": 10**4000, "bundle_id": 1},
    {"bundle_id": 1, "x" * 100_000: "y" * 100_000},
    {"bundle_id": 999, "version": "1"},
    {},
]


class NoEngine(OverlapEngine):
    """Must not be asked."""

    def open_attributor(self, bundle):
        raise AssertionError(bundle)

    def open_meter(self, bundle):
        raise AssertionError(bundle)


@pytest.fixture
def make(parts, database):
    """Makes a runtime of either kind."""

    def _make(kind, hints):
        return kind(
            parts.settings,
            database=database,
            hints=hints,
            metrics=parts.metrics,
            engine=NoEngine(parts.settings),
        )

    return _make


@pytest.mark.parametrize("measuring", [False, True], ids=["attribute", "measure"])
def test_a_forged_hint_writes_nothing(make, parts, settings, measuring):
    """No file, no engine, no hint passed on, and at most one line of bounded length each."""
    work: Any
    if measuring:
        runtime, work = make(MeasurerRuntime, None), work_measure_hint
    else:
        runtime, work = make(Runtime, parts.hints()), work_hint
    for message in FORGED:
        with capture_logs() as logs:
            assert work(message, runtime) is None
        assert len(logs) <= 1
        assert len(str(logs)) < 500
    assert not settings.state_dir.exists()
    assert parts.queued_hints() == 0


def test_a_hint_for_a_bundle_without_work_loads_nothing(make, parts, bundle_id):
    """Forged hints for bundles of old would push the model in use out of memory."""
    with capture_logs() as logs:
        assert work_hint({"bundle_id": bundle_id}, make(Runtime, parts.hints())) is None
    assert logs == []


def test_a_hint_for_an_unknown_bundle_with_work_writes_no_file(make, parts, settings):
    """The database is asked for the bundle before anything is written about it."""
    runtime = make(Runtime, parts.hints())
    runtime.store.pending_counts = lambda **_: {999: 3}
    with capture_logs() as logs:
        assert work_hint({"bundle_id": 999}, runtime) is None
    assert [one["event"] for one in logs] == ["bundle_refused"]
    assert not settings.state_dir.exists()
