"""Which files of a bundle hold something of each training example, and how they are written for other rows.

A bundle is derived from another one by rewriting these files and sharing the rest (`deriving`). Every file is named here, by what is to become of it: a file that
nobody named could hold what was to be erased, so it is refused. Numbers are copied as they are, so what a row scores does not change.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import ArrayFile, mapped
from wherefrom.attribution.retrieval.encoder import ENCODED
from wherefrom.errors import BundleCorrupt

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

#: Entries that are in memory at once.
_CHUNK = 4096

#: Files with one entry for each row.
PER_ROW = frozenset(
    {
        "features/norms.npy",
        "features/cores.npy",
        "features/core_scales.npy",
        "features/final.npy",
        "features/final_scales.npy",
        "features/pooled.npy",
        "features/vectors.npy",
        f"features/{ENCODED}",
        "corpus/token_starts.npy",
    }
)


@dataclass(frozen=True)
class Runs:
    """Files with a run of entries for each row, and the file that says where each run begins."""

    offsets: str
    values: tuple[str, ...]


RUNS = (
    Runs(
        "features/offsets.npy",
        tuple(
            f"features/{name}.npy"
            for name in ("a", "a_scale", "b", "b_scale", "sketches", "sketch_scales")
        ),
    ),
    Runs("corpus/token_offsets.npy", ("corpus/token_ids.npy", "corpus/token_explained.npy")),
    Runs("corpus/shown_offsets.npy", ("corpus/shown_ranges.npy",)),
)  # fmt: skip
OF_ROWS = PER_ROW | {one.offsets for one in RUNS} | {name for one in RUNS for name in one.values}


def keep_rows(bundle: Path, target: Path, kept: Rows) -> None:
    """Write the arrays of some rows of a bundle, in the given order, into a folder.

    Args:
        bundle: the bundle that has them.
        target: folder of the new bundle, with its folders `features` and `corpus`.
        kept: row numbers, `[K]`.
    """
    for name in sorted(PER_ROW):
        if (bundle / name).is_file():
            _write(target / name, [(_open(bundle / name), kept)])
    for runs in RUNS:
        if (bundle / runs.offsets).is_file():
            offsets = np.asarray(_open(bundle / runs.offsets))
            np.save(target / runs.offsets, _offsets(np.diff(offsets)[kept]))
            for name in runs.values:
                if (bundle / name).is_file():
                    _keep_runs(_open(bundle / name), offsets, kept, target / name)


def join_features(bundle: Path, added: Path, target: Path) -> None:
    """Write the features of a bundle's rows with those of another folder behind them.

    Args:
        bundle: the bundle whose rows come first.
        added: folder with the same files for the rows that are added.
        target: folder of the new bundle, with its folder `features`.

    Raises:
        BundleCorrupt: one side has a file that the other one lacks.
    """
    features = {name for name in OF_ROWS if name.startswith("features/")}
    for name in sorted(features - {one.offsets for one in RUNS}):
        parts = [_open(folder / name) for folder in _both(bundle, added, name)]
        if parts:
            _write(target / name, [(part, None) for part in parts])
    offsets = RUNS[0].offsets
    found = [_open(folder / offsets) for folder in _both(bundle, added, offsets)]
    np.save(target / offsets, _offsets(np.concatenate([np.diff(one) for one in found])))


def _both(bundle: Path, added: Path, name: str) -> tuple[Path, ...]:
    there = tuple(folder for folder in (bundle, added) if (folder / name).is_file())
    if len(there) == 1:
        raise BundleCorrupt(f"{bundle}: the new rows do not fit it; only {there[0]} has {name}")
    return there


def _open(file: Path) -> Array:
    try:
        return mapped(file)
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{file}: not an array: {error}") from error


def _offsets(lengths: Rows) -> Rows:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _keep_runs(array: Array, offsets: Rows, kept: Rows, file: Path) -> None:
    """Write the entries of some rows."""
    with ArrayFile(file) as written:
        written.append(array[:0])
        for first in range(0, len(kept), _CHUNK):
            for chunk in _chunks([(array, _entries(offsets, kept[first : first + _CHUNK]))]):
                written.append(chunk)


def _entries(offsets: Rows, rows: Rows) -> Rows:
    """Numbers of all entries of some rows."""
    lengths = offsets[rows + 1] - offsets[rows]
    begins = np.repeat(offsets[rows] - _offsets(lengths)[:-1], lengths)
    return np.asarray(begins + np.arange(len(begins)), dtype=np.int64)


def _write(file: Path, parts: Sequence[tuple[Array, Rows | None]]) -> None:
    """Write entries of arrays behind each other; all of an array where no entries are named."""
    count = sum(len(array) if entries is None else len(entries) for array, entries in parts)
    with ArrayFile(file, count) as written:
        for chunk in _chunks(parts):
            written.append(chunk)
        if not count:
            written.append(parts[0][0][:0])


def _chunks(parts: Iterable[tuple[Array, Rows | None]]) -> Iterator[Array]:
    for array, entries in parts:
        for first in range(0, len(array) if entries is None else len(entries), _CHUNK):
            last = first + _CHUNK
            yield np.asarray(array[first:last] if entries is None else array[entries[first:last]])
