"""Tests of processes, servers and browsers."""

import os
from pathlib import Path

import pytest

_FOLDER = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In CI they run again once where they fail: a machine that stalls for seconds breaks one in thousands. The summary names each (`rerun`)."""
    if os.environ.get("CI") != "true":
        return
    for item in items:
        if _FOLDER in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))
