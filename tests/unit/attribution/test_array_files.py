"""Arrays that are written part by part: the bytes of `np.save`, whether or not the length is known beforehand."""

from pathlib import Path

import numpy as np
import pytest

from wherefrom.attribution.array_files import ArrayFile, OffsetsFile

VALUES = np.arange(1300 * 2, dtype=np.int32).reshape(1300, 2)


@pytest.mark.parametrize("count", [len(VALUES), None])
def test_same_file_as_of_the_whole(tmp_path: Path, count: int | None) -> None:
    """A count that is known at the end alone stands in the header all the same."""
    with ArrayFile(tmp_path / "parts.npy", count) as file:
        for first in (0, 7, 1000):
            file.append(VALUES[first : {0: 7, 7: 1000}.get(first, len(VALUES))])
        file.close()  # closing twice changes nothing
    np.save(tmp_path / "whole.npy", VALUES)
    assert (tmp_path / "parts.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_nothing_appended(tmp_path: Path) -> None:
    """An array of no entries is an array."""
    with ArrayFile(tmp_path / "none.npy") as file:
        file.append(VALUES[:0])
    assert np.load(tmp_path / "none.npy", mmap_mode="r").shape == (0, 2)


def test_offsets_of_rows(tmp_path: Path) -> None:
    """Part by part, rows without entries among them; a file of no rows has where the first would begin."""
    with OffsetsFile(tmp_path / "offsets.npy") as file:
        assert file.end == 0
        for lengths in ([3, 0], [], [2]):
            file.append_rows(lengths)
        assert file.end == 5
    assert np.load(tmp_path / "offsets.npy").tolist() == [0, 3, 3, 5]
    OffsetsFile(tmp_path / "none.npy").close()
    assert np.load(tmp_path / "none.npy", mmap_mode="r").tolist() == [0]
