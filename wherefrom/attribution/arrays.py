"""Tensors of a corpus on disk: numbers of a byte or less with a scale for each last axis."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.atomic import atomic_file
from wherefrom.attribution.array_files import ArrayFile, mapped

#: Step of the grid of `coded` over the root mean square of the numbers, by bits: the best for normal numbers (Max 1960). With one bit only the sign counts.
_STEPS = {1: 1.0, 2: 0.9957, 4: 0.3352}
_LARGEST_HALF = 65504.0
#: Entries that are float32 at once while they are written anew.
_REWRITTEN = 256


class QuantisedWriter:
    """Appends numbers to two `.npy` files; complete after `finish`. int8 values and float32 scales, or few bits (`coded`)."""

    def __init__(self, values: Path, scales: Path, *, count: int, bits: int = 8) -> None:
        """Open the files.

        Args:
            values: file of the values.
            scales: file of the scales.
            count: entries of the first axis in all.
            bits: for each number.
        """
        self._bits = bits
        self._files = ArrayFile(values, count), ArrayFile(scales, count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def append(self, numbers: Tensor) -> None:
        """Add entries of the first axis, `[n, ..., D]`."""
        parts = quantise(numbers) if self._bits == 8 else coded(numbers, self._bits)
        for file, part in zip(self._files, parts, strict=True):
            file.append(part.cpu().numpy())

    def finish(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()


def write_parts(file: Path, parts: Iterable[Tensor], *, count: int | None = None) -> None:
    """Write tensors on the CPU behind each other as one `.npy` file; `count` as of `ArrayFile`."""
    with ArrayFile(file, count) as written:
        for part in parts:
            written.append(part.numpy())


def quantise(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values `[..., D]` and their scales `[...]`, where the numbers are."""
    scales = numbers.abs().amax(dim=-1).clamp_min(1e-20) / 127.0
    return (numbers / scales[..., None]).round().to(torch.int8), scales


def coded(numbers: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Few bits for each number: uint8 `[..., ceil(D bits / 8)]`, several codes in a byte, and float16 scales `[...]`.

    A code k stands for (k + 1/2 - 2^(bits - 1)) times the scale. The scale is the one with which the coded numbers have the inner product with the given ones that these have with
    themselves, so inner products with others are right on average and their errors, of one sign as often as of the other, average out over many numbers.

    Args:
        numbers: `[..., D]`.
        bits: 1, 2 or 4.

    References:
        Inner products of few bits with whole numbers: RaBitQ (arXiv:2405.12497), here with a scale for each last axis and without a rotation.
    """
    half, each = 1 << (bits - 1), 8 // bits
    step = numbers.square().mean(dim=-1, keepdim=True).sqrt().mul_(_STEPS[bits]).clamp_min_(1e-20)
    codes = (numbers / step).floor_().clamp_(-half, half - 1)
    grid = codes + 0.5
    scales = numbers.square().sum(dim=-1) / (numbers * grid).sum(dim=-1).clamp_min(1e-20)
    whole = torch.nn.functional.pad((codes + half).to(torch.uint8), (0, -numbers.shape[-1] % each))
    shifts = torch.arange(each, device=numbers.device, dtype=torch.uint8) * bits
    packed = (whole.unflatten(-1, (-1, each)) << shifts).sum(dim=-1, dtype=torch.uint8)
    return packed, scales.clamp_max_(_LARGEST_HALF).half()


def decoded(packed: Tensor, scales: Tensor, *, bits: int, numbers: int) -> Tensor:
    """Float32 numbers `[..., D]` of what `coded` gave; `numbers` is D."""
    shifts = torch.arange(8 // bits, device=packed.device, dtype=torch.uint8) * bits
    codes = ((packed[..., None] >> shifts) & ((1 << bits) - 1)).flatten(-2)[..., :numbers]
    return codes.float().add_(0.5 - (1 << (bits - 1))).mul_(scales.float()[..., None])


def restored(
    values: npt.NDArray[np.int8],
    scales: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    device: torch.device | None,
) -> Tensor:
    """Float32 numbers of the given rows of both arrays, which may be mapped, on a device (None: the CPU)."""
    some, scale = taken((values, scales), rows, device)
    return some.float().mul_(scale[..., None])


def taken(
    arrays: Sequence[npt.NDArray[Any]], rows: npt.NDArray[np.int64], device: torch.device | None
) -> Iterator[Tensor]:
    """The given rows of each array, which may be mapped, on a device (None: the CPU)."""
    return (torch.from_numpy(np.array(one[rows])).to(device or "cpu") for one in arrays)


def rewrite(
    folder: Path,
    names: tuple[str, str],
    change: Callable[[Tensor, npt.NDArray[np.int64]], Tensor],
    *,
    bits: int,
) -> None:
    """Write numbers anew in place of whole ones, part by part.

    Args:
        folder: where the files are.
        names: of the files of values and scales, without their ending.
        change: from numbers `[n, ...]` and their places to the numbers that are written.
        bits: for each of these.
    """
    files = [folder / f"{name}.npy" for name in names]
    values, scales = (mapped(file) for file in files)
    with (
        atomic_file(files[0]) as new_values,
        atomic_file(files[1]) as new_scales,
        QuantisedWriter(new_values, new_scales, count=len(values), bits=bits) as written,
    ):
        for first in range(0, len(values), _REWRITTEN):
            rows = np.arange(first, min(first + _REWRITTEN, len(values)))
            written.append(change(restored(values, scales, rows, None), rows))


def mixed_numbers(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): neighbouring numbers become unrelated ones, the same on every machine."""
    mixed = values * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: npt.NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return found
