"""How much of a queue is counted for hints: as much as can be worth one, however long it is."""

from typing import Any, cast

import pytest

from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.broker.hints import HintSender


class Queue:
    """A queue of hints that holds some already, and notes what is put on it."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.sent: list[tuple[str, int]] = []

    def llen(self, _: str) -> int:
        return self.waiting

    def send_task(self, name: str, **message: Any) -> None:
        self.sent.append((name, message["kwargs"]["bundle_id"]))


@pytest.mark.parametrize("waiting", [0, 1, 3])
@pytest.mark.parametrize("bundles", [1, 2, 5])
def test_a_longer_queue_gives_no_hint_more(waiting: int, bundles: int) -> None:
    """A sweeper that counts up to `enough_rows` sends what it would send if it counted a million rows."""
    sent = []
    settings = Settings(worker_processes=3, batch_audits=8)
    for counts_all in (False, True):
        queue = Queue(waiting)
        hints = HintSender(
            cast("Any", queue), cast("Any", queue), settings=settings, metrics=Metrics(), sender="sweeper"
        )
        rows = 1_000_000 if counts_all else hints.enough_rows
        hints.send_for_work(dict.fromkeys(range(1, bundles + 1), rows))
        sent.append(queue.sent)
    assert sent[0] == sent[1]
    assert len(sent[0]) == 6 - waiting
