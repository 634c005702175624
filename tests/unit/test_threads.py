"""`wherefrom.threads`: threads of torch sleep while they wait, unless the user wants otherwise."""

import os

import pytest

from wherefrom.threads import sleep_while_waiting


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default."""
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_users_own_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the environment wins."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    sleep_while_waiting()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
