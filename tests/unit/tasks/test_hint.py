"""One hint is one batch; a hint is never trusted and never fatal."""

from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from tasks.celery_tasks import AttributeTask
from tasks.hint import work_hint
from wherefrom.errors import BundleCorrupt, DatabaseUnavailable, UnknownBundle
from wherefrom.messages import ATTRIBUTE_TASK
from wherefrom.records import FlaggedRecord


@dataclass
class NoWhatIfs:
    """What-ifs that wait, and none that can be claimed."""

    waiting: dict[int, int] = field(default_factory=dict)

    def pending_counts(self, **_):
        """Those that wait."""
        return self.waiting

    def claim(self, bundle_id, **lease):
        """None."""


@dataclass
class Runtime:
    """A runtime over the bench; notes the hints that are sent."""

    bench: Any
    error: Exception | None = None
    was_refused: bool = False
    sent: list[int] = field(default_factory=list)

    def __post_init__(self):
        self.settings = self.bench.settings.model_copy(update={"batch_audits": 2})
        self.metrics = self.bench.metrics
        self.store = self.bench.store
        self.what_ifs = NoWhatIfs()
        self.owner = "me"
        self.clock = lambda: self.bench.now
        self.is_ending = lambda: False

    def has_loaded(self, bundle_id):
        """Nothing is kept."""
        return False

    def has_refused(self, bundle_id):
        """As ordered."""
        return self.was_refused

    def attributor(self, bundle_id):
        """The engine, or the error that was ordered."""
        if self.error is not None:
            raise self.error
        return self.bench.engine()

    def send_hint(self, bundle_id):
        """Note the hint."""
        self.sent.append(bundle_id)


@pytest.fixture
def runtime(bench):
    """A runtime with three pending audits, worked two at a time."""
    for _ in range(3):
        bench.audits.add(FlaggedRecord(prompt="p", completion="some words", model="m"))
    return Runtime(bench)


def test_one_hint_is_one_batch_and_one_more_hint_while_work_remains(runtime):
    """Two audits, one hint; one audit, no hint; nothing to do, nothing done."""
    first = work_hint({"bundle_id": 1}, runtime)
    assert first is not None
    assert first.counts() == {"done": 2}
    assert runtime.sent == [1]
    second = work_hint({"bundle_id": 1}, runtime)
    assert second is not None
    assert second.counts() == {"done": 1}
    assert work_hint({"bundle_id": 1}, runtime) is None
    assert runtime.sent == [1]


def add(bench, count, bundle_id=1):
    """Further pending audits."""
    for _ in range(count):
        bench.audits.add(FlaggedRecord(prompt="p", completion="some words", model="m"), bundle_id=bundle_id)


def test_batches_that_wait_follow_at_once(runtime):
    """One hint works off all full batches; what is left over takes one more hint."""
    add(runtime.bench, 4)
    report = work_hint({"bundle_id": 1}, runtime)
    assert report is not None
    assert (report.counts(), runtime.sent) == ({"done": 6}, [1])


def _other_bundle(runtime):
    add(runtime.bench, 1, bundle_id=2)


def _what_if(runtime):
    runtime.what_ifs.waiting = {1: 1}


def _ending(runtime):
    runtime.is_ending = lambda: True


def _late(runtime):
    runtime.clock = count(0.0, step=31.0).__next__


def _other_processes(runtime):
    runtime.settings = runtime.settings.model_copy(update={"worker_processes": 4})


@pytest.mark.parametrize("reason", [_other_bundle, _what_if, _ending, _late, _other_processes])
def test_no_batch_follows_where_others_wait(runtime, reason):
    """Another bundle or a what-if waits, the worker is to end, this hint took long, or other processes would find nothing."""
    add(runtime.bench, 4)
    reason(runtime)
    report = work_hint({"bundle_id": 1}, runtime)
    assert report is not None
    assert (report.counts(), runtime.sent) == ({"done": 2}, [1])


@pytest.mark.parametrize(
    "message",
    [{}, {"bundle_id": "x"}, {"bundle_id": 0}, {"bundle_id": 1, "version": 2}, {"bundle_id": 1, "x": 1}],
)
def test_a_forged_hint_is_dropped(runtime, message, logs):
    """What is no hint does nothing but a line in the log."""
    assert work_hint(message, runtime) is None
    assert [one["event"] for one in logs] == ["hint_refused"]
    assert set(runtime.bench.states().values()) == {"pending"}


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (UnknownBundle("1"), "bundle_refused"),
        (BundleCorrupt("x"), "bundle_refused"),
        (DatabaseUnavailable("x"), "batch_put_off"),
    ],
)
def test_a_bundle_that_cannot_be_opened_costs_no_attempt(runtime, error, event, logs):
    """Nothing is claimed before the engine stands."""
    runtime.error = error
    assert work_hint({"bundle_id": 1}, runtime) is None
    assert [one["event"] for one in logs] == [event]
    assert [one.attempt for one in runtime.bench.audits.by_id.values()] == [0, 0, 0]


def test_a_refusal_is_told_once(runtime, logs):
    """Who looked at the bundle told it; the hints that follow twice a second tell it to nobody but a debugger."""
    runtime.error = BundleCorrupt("x")
    for runtime.was_refused in (False, True, True):
        assert work_hint({"bundle_id": 1}, runtime) is None
    assert [one["log_level"] for one in logs] == ["error", "debug", "debug"]


def test_the_celery_task_hands_the_message_over(runtime):
    """The task has its fixed name, and runs only where there is a runtime."""
    task = AttributeTask()
    assert task.name == ATTRIBUTE_TASK
    with pytest.raises(RuntimeError, match="no runtime"):
        task.run(bundle_id=1)
    task.runtime = runtime
    task.run("ignored", bundle_id=1)
    assert sorted(runtime.bench.states().values()) == ["done", "done", "pending"]
