"""When a worker counts as deaf."""

import threading

import pytest

from wherefrom.errors import QueueUnavailable
from worker.broker.transport import Connection
from worker.pool.connection_check import DEAF_S, FRESH_S, ConnectionCheck


class QueueConnection:
    """A connection to a queue, as the test says."""

    def __init__(self):
        self.heard_at: float | None = 0.0
        self.room = True

    def has_room(self):
        """As set."""
        return self.room


class Around:
    """A worker's surroundings: time, connection, Redis."""

    def __init__(self):
        self.now, self.connection, self.redis_away = 0.0, QueueConnection(), False
        self.connection_check = ConnectionCheck(lambda: self.connection, self.ask, clock=lambda: self.now)

    def ask(self):
        """Redis answers, or not."""
        if self.redis_away:
            raise QueueUnavailable("away")

    def silent_after(self, seconds):
        """Look, wait, look."""
        self.connection_check.silent_s()
        self.now += seconds
        return self.connection_check.silent_s()


@pytest.fixture
def around():
    """A worker that has just heard something."""
    made = Around()
    assert made.connection_check.silent_s() == 0
    made.now = FRESH_S + 1
    return made


def test_with_room_and_without_an_answer_it_is_deaf(around):
    """Time runs from the first look that heard nothing; one answer ends it."""
    assert around.silent_after(5) == 5
    assert around.silent_after(5) == 10
    around.connection.heard_at = around.now
    assert around.silent_after(1) == 0


def test_a_lost_connection_that_does_not_come_back_is_deafness(around):
    """Redis answers others, and this worker has no connection."""
    around.connection = None
    assert around.silent_after(7) == 7


def test_a_full_worker_asks_for_nothing(around):
    """It may work for hours."""
    around.connection.room = False
    assert around.silent_after(3600) == 0


def test_an_absent_redis_is_no_deafness(around):
    """Starting again would not help; the clock starts when Redis answers."""
    around.redis_away = True
    assert around.silent_after(3600) == 0
    around.redis_away = False
    assert around.silent_after(4) == 4


def test_a_worker_that_starts_is_not_deaf():
    """Before the first answer the other watchdog looks."""
    around = Around()
    around.connection.heard_at = None
    assert around.silent_after(3600) == 0


def test_a_deaf_worker_is_ended_and_a_bug_of_the_watcher_ends_nothing(around, monkeypatch):
    """The thread goes on after whatever it meets."""
    looks = iter([ZeroDivisionError(), 0.0, DEAF_S])

    def look():
        one = next(looks)
        if isinstance(one, Exception):
            raise one
        return one

    ended = []
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda _: False)
    monkeypatch.setattr(around.connection_check, "silent_s", look)
    around.connection_check.run(stop=stop, end=lambda: ended.append(True))
    assert ended == [True]


def test_redis_is_asked_for_every_few_seconds(monkeypatch):
    """However long it was away: kombu's own waits grow to 30 s."""
    waits = []

    def give_up(_error, interval):
        waits.append(interval)
        if len(waits) == 12:
            raise KeyboardInterrupt

    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)
    with Connection("redis://127.0.0.1:1/0") as connection, pytest.raises(KeyboardInterrupt):
        connection.ensure_connection(give_up)
    assert max(waits) <= 3
