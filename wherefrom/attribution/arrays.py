"""Arrays of a corpus on disk: `.npy` files that are written part by part, of numbers that are int8 with a scale."""

import io
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


class ArrayWriter:
    """Appends to a `.npy` file whose length is known; unbuffered, and not mapped, because on a full disk a mapped file ends the process (SIGBUS)."""

    def __init__(self, file: Path, count: int) -> None:
        self._file = file.open("wb", buffering=0)
        self._count, self._started = count, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, values: npt.NDArray[Any]) -> None:
        """Add entries of the first axis."""
        if not self._started:
            shape = (self._count, *values.shape[1:])
            header = {
                "descr": np.lib.format.dtype_to_descr(values.dtype),
                "fortran_order": False,
                "shape": shape,
            }
            start = io.BytesIO()
            np.lib.format.write_array_header_1_0(start, header)
            self._write(memoryview(start.getvalue()))
            self._started = True
        self._write(memoryview(np.ascontiguousarray(values).tobytes()))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, content: memoryview) -> None:
        while content:  # an unbuffered file may take less than it is given
            content = content[self._file.write(content) :]


def quantised(values: Tensor) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 along the last axis with one scale each."""
    scales = values.abs().amax(dim=-1).clamp_min(1e-20) / 127.0
    return (values / scales[..., None]).round().to(torch.int8).cpu().numpy(), scales.cpu().numpy()
