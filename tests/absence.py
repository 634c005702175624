"""What a test does where a program or package that it needs is missing."""

import os
from typing import NoReturn

import pytest


def absent(reason: str) -> NoReturn:
    """A failure in CI, where `.ci/run` should have installed it; a skip elsewhere."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; in CI it must be there", pytrace=False)
    pytest.skip(reason)
