"""How the end of a pool process is put into words, and under which names it held leases."""

import os
import pickle
import signal

import pytest
from billiard.common import human_status
from billiard.exceptions import TimeLimitExceeded, WorkerLostError

from wherefrom.settings import Settings
from worker.app import make_celery
from worker.pool.lost_process import exit_reason
from worker.pool.owners import owner_name, owner_prefix


@pytest.mark.parametrize(
    ("exitcode", "description"),
    [
        (-signal.SIGKILL, "its process ended with signal 9 (SIGKILL)"),
        (-signal.SIGSEGV, "its process ended with signal 11 (SIGSEGV)"),
        (-signal.SIGALRM, "its process was ended after the time limit of the work in hand"),
        (3, "its process ended with exit code 3"),
    ],
)
def test_signals_and_exit_codes_are_named(exitcode, description):
    """In billiard's own sentence, with and without the number of the job."""
    for job in ("", " Job: 17"):
        lost = WorkerLostError(f"Worker exited prematurely: {human_status(exitcode)}{job}.")
        assert exit_reason(lost) == description


def test_other_ends_of_a_task():
    """`sys.exit` in a task ends its process too; any other error leaves it alive."""
    assert exit_reason(SystemExit(4)) == "its process ended with exit code 4"
    assert exit_reason(SystemExit("text")) == "its process ended with exit code 1"
    assert exit_reason(ValueError("x")) is None
    assert exit_reason(TimeLimitExceeded(5)) is None, "told by on_timeout"
    assert exit_reason(WorkerLostError("in words of a later release")) == (
        "its process ended with an unknown status"
    )


def test_a_pool_process_claims_under_a_name_that_its_main_process_knows():
    """The worker's own name travels with the application; another worker's is another."""
    app = make_celery(Settings())
    copy = pickle.loads(pickle.dumps(app))
    assert owner_name(copy.node).startswith(owner_prefix(os.getpid(), app.node))
    other = make_celery(Settings())
    assert other.node != app.node
    assert app.tasks["wherefrom.attribute"].Request == "worker.pool.lost_process:WatchedRequest"
    for one in (app, copy, other):
        one.close()
