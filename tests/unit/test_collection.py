"""Collecting the tests stays quick: half a minute went into libraries that most runs never use."""

import pytest

from tests.conftest import IMPORTED_WHILE_COLLECTING


def test_no_slow_library_is_imported_to_collect(pytestconfig: pytest.Config) -> None:
    """No test module, and nothing that one imports at its top, brings a library that is slow to import.

    Import it in the test or fixture that needs it; write `import transformers` and `transformers.LlamaConfig` where it is used, not
    `from transformers import LlamaConfig`, and build no configuration in the arguments of `parametrize`.
    """
    assert pytestconfig.stash[IMPORTED_WHILE_COLLECTING] == []
