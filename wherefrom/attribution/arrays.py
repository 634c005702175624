"""Arrays of a corpus on disk: `.npy` files that are written part by part, and numbers that are int8 with a scale for each last axis."""

import io
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class QuantisedWriter:
    """Appends numbers to two `.npy` files, int8 values and float32 scales; complete after `finish`."""

    def __init__(self, values: Path, scales: Path, *, count: int) -> None:
        """Open the files.

        Args:
            values: file of the values.
            scales: file of the scales.
            count: entries of the first axis in all.
        """
        self._files = ArrayFile(values, count), ArrayFile(scales, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def append(self, numbers: Tensor) -> None:
        """Add entries of the first axis, `[n, ..., D]`."""
        for file, part in zip(self._files, quantise(numbers), strict=True):
            file.append(part.cpu().numpy())

    def finish(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


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

    def append(self, values: npt.NDArray[Any]) -> None:
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


def write_parts(file: Path, parts: Iterable[Tensor], *, count: int | None = None) -> None:
    """Write tensors on the CPU behind each other as one `.npy` file; `count` as of `ArrayFile`."""
    with ArrayFile(file, count) as written:
        for part in parts:
            written.append(part.numpy())


def write_all(file: io.FileIO, content: memoryview) -> None:
    """An unbuffered file may take less than it is given."""
    while content:
        content = content[file.write(content) :]


def quantise(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values `[..., D]` and their scales `[...]`, where the numbers are."""
    scales = numbers.abs().amax(dim=-1).clamp_min(1e-20) / 127.0
    return (numbers / scales[..., None]).round().to(torch.int8), scales


def restored(
    values: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    device: torch.device | None,
) -> Tensor:
    """Float32 numbers of the given rows of both arrays, which may be mapped, on a device (None: the CPU)."""
    some, scale = (torch.from_numpy(np.array(one[rows])).to(device or "cpu") for one in (values, scales))
    return some.float().mul_(scale[..., None])
