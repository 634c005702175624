"""Reads JSON that others wrote: nesting beyond what Python reads is an error of the text, like any other."""

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        JSONDecodeError: no JSON, or nested too deeply.
        UnicodeDecodeError: bytes that are no UTF-8, UTF-16 or UTF-32.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("Nested too deeply", "", 0) from error
