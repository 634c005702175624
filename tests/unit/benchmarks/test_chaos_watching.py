"""What a storm reads off its clocks."""

import time
from typing import cast

import pytest

from benchmarks.chaos.watching import Reclaims
from db.session import Database


def test_no_seconds_while_a_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit that nobody claims waits until the end; what a server was away does not count, from when the audit's worker died."""
    now = [100.0]
    reclaims = Reclaims(cast("Database", None))
    monkeypatch.setattr(Reclaims, "_look", lambda *_: None)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    reclaims.expect([(1, 1)])
    now[0] = 103.0
    with reclaims.server_away():
        now[0] = 123.0
        reclaims.expect([(2, 1)])
        now[0] = 133.0
    now[0] = 138.0
    assert reclaims.stop() == [8.0, 5.0]
