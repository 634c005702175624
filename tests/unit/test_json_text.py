"""JSON that others wrote, read line by line."""

from pathlib import Path

import pytest

from wherefrom.errors import InvalidRecord
from wherefrom.json_text import objects_in


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    """A line separator inside a text is part of it; blank lines and a BOM are passed over."""
    file = tmp_path / "a.jsonl"
    file.write_bytes('\ufeff{"text": "one\u2028two\u0085three"}\r\n\n{"text": ""}'.encode())
    assert list(objects_in(file)) == [
        (f"{file}, line 1", {"text": "one\u2028two\u0085three"}),
        (f"{file}, line 3", {"text": ""}),
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{', "a.jsonl, line 2: malformed JSON"),
        (b"[" * 100_000, "line 1: malformed JSON"),
        (b'{"a": "\xff"}', "line 1: malformed JSON"),
        (b"[1]", "line 1: must be a JSON object"),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    """With its file and number."""
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(InvalidRecord, match=told):
        list(objects_in(file))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(InvalidRecord, match="none: cannot be read"):
        list(objects_in(tmp_path / "none"))
