"""Keys that are remembered on disk."""

import errno
from pathlib import Path

import pytest

from wherefrom.attribution.first_seen import FirstSeen


@pytest.mark.parametrize("on_disk", [True, False])
def test_first_value_of_a_key(tmp_path: Path, on_disk: bool) -> None:
    """The first value is kept, whatever comes later; keys differ by every character."""
    with FirstSeen[str](tmp_path / "seen" if on_disk else None) as seen:
        assert seen.first("a", "line 1") is None
        assert seen.first("A", "line 2") is None
        assert seen.first("a ", "line 3") is None
        assert seen.first("a", "line 4") == "line 1"
        assert seen.first("a", "line 5") == "line 1"


@pytest.mark.parametrize("text", ["rows-\udcff.jsonl, line 1", "a\x00b", "\U0001f600", ""])
def test_any_text(tmp_path: Path, text: str) -> None:
    """The place of a row names its file, and the bytes of a file's name may be anything."""
    with FirstSeen[str](tmp_path / "seen") as seen:
        assert seen.first(text, text) is None
        assert seen.first(text, "later") == text


def test_zero_is_a_value(tmp_path: Path) -> None:
    """Row 0 was met too."""
    with FirstSeen[int](tmp_path / "seen") as seen:
        assert [seen.first(key, row) for row, key in enumerate("aba")] == [None, None, 0]


def test_full_disk(tmp_path: Path) -> None:
    """SQLite's own error is the system's: a build says then that the disk is full."""
    with FirstSeen[int](tmp_path / "seen") as seen:
        seen._database.execute("PRAGMA max_page_count = 3")
        with pytest.raises(OSError, match="No space left") as caught:
            any(seen.first(f"a key of some length, number {row}", row) for row in range(10_000))
    assert caught.value.errno == errno.ENOSPC
