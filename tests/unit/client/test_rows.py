"""Rows that come as JSON lines."""

import pytest

from wherefrom.client import Service
from wherefrom.client.connection import Connection
from wherefrom.errors import ServiceUnavailable


@pytest.mark.parametrize(
    ("line", "told"), [(b'{"id": ', "a broken row"), (b"\xff", "a broken row"), (b"[1]", "no object")]
)
def test_a_row_that_cannot_be_read_is_told(monkeypatch: pytest.MonkeyPatch, line: bytes, told: str) -> None:
    """By an error of wherefrom, after the rows before it, of exports and of cleaned corpora."""
    monkeypatch.setattr(Connection, "lines", lambda *_: iter([b'{"id": "r-1"}', line]))
    with Service("http://127.0.0.1:1") as service:
        for rows in (service.export_rows("examples"), service.cleaned_corpus(1)):
            assert next(rows) == {"id": "r-1"}
            with pytest.raises(ServiceUnavailable, match=told):
                next(rows)
