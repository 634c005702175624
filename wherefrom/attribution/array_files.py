"""Arrays of a corpus on disk: `.npy` files that are written part by part. Needs no torch, for processes that only bring bundles into service."""

import io
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from wherefrom.atomic import atomic_file

Array = npt.NDArray[Any]


class ArrayFile:
    """Appends to a `.npy` file; unbuffered, and not mapped, because on a full disk a mapped file ends the process (SIGBUS)."""

    def __init__(self, file: Path, count: int | None = None) -> None:
        """Open the file.

        Args:
            file: is overwritten.
            count: entries of the first axis in all; None where only the end tells: then `close` writes them.
        """
        self._file = file.open("wb", buffering=0)
        self._count, self._written = count, 0
        self._header: dict[str, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, values: Array) -> None:
        """Add entries of the first axis."""
        if self._header is None:
            descr = np.lib.format.dtype_to_descr(values.dtype)
            self._header = {
                "descr": descr,
                "fortran_order": False,
                "shape": (self._count or 0, *values.shape[1:]),
            }
            self._write_header(self._header)
        write_all(self._file, memoryview(np.ascontiguousarray(values).tobytes()))
        self._written += len(values)

    def close(self) -> None:
        """Close the file."""
        if self._count is None and self._header is not None and not self._file.closed:
            self._file.seek(0)
            shape = (self._written, *self._header["shape"][1:])
            self._write_header(self._header | {"shape": shape})  # as long as the first one: numpy leaves room
        self._file.close()

    def _write_header(self, header: dict[str, Any]) -> None:
        start = io.BytesIO()
        np.lib.format.write_array_header_1_0(start, header)
        write_all(self._file, memoryview(start.getvalue()))


class OffsetsFile(ArrayFile):
    """Where the entries of each row begin in another file, and where the last ones end: int64 `[N + 1]`."""

    def __init__(self, file: Path) -> None:
        """Open the file, which is overwritten."""
        super().__init__(file)
        #: Entries so far.
        self.end = 0
        self.append(np.zeros(1, dtype=np.int64))

    def append_rows(self, lengths: Sequence[int]) -> None:
        """Add rows, by how many entries each has."""
        self.append(self.end + np.cumsum(lengths, dtype=np.int64))
        self.end += sum(lengths)


def write_all(file: io.FileIO, content: memoryview) -> None:
    """An unbuffered file may take less than it is given."""
    while content:
        content = content[file.write(content) :]


def write_arrays(file: Path, /, **arrays: npt.ArrayLike) -> None:
    """Write named arrays as one `.npz` file, whole or not at all; the same arrays give the same bytes."""
    with atomic_file(file) as unfinished, unfinished.open("wb") as target:
        np.savez(target, **arrays)  # type: ignore[arg-type]  # a name may be `allow_pickle` for numpy's stubs


def mapped(file: Path) -> Array:
    """The array of a `.npy` file, memory-mapped.

    Raises:
        OSError, ValueError: the file is missing, or holds no array.
    """
    found: Array = np.load(file, mmap_mode="r", allow_pickle=False)
    return found
