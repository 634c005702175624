"""The corpus as the model saw it: token ids of every training example, kept in the bundle for what must run the model on examples again.

Three flat `.npy` files, memory-mapped: ids int32 of all rows behind each other, offsets int64 `[N + 1]`, and where each completion starts int32 `[N]`. Where rows
hold several trained turns there are three more: which tokens are explained, bool like the ids, and for the rows whose tokens cannot be found again from the shown
text their characters in it, int32 `[E, 2]`, with offsets int64 `[N + 1]`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt

_FILES = ("token_ids", "token_offsets", "token_starts")
_EXPLAINED = "token_explained"
_SHOWN = ("shown_ranges", "shown_offsets")


def write_token_rows(bundle: Path, rows: Sequence[TokenRow]) -> None:
    """Store the tokens of all training examples, in corpus order."""
    folder = bundle / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    lengths = [len(row.ids) for row in rows]
    values = {
        "token_ids": np.concatenate([np.array(row.ids, dtype=np.int32) for row in rows]),
        "token_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "token_starts": np.array([row.start for row in rows], dtype=np.int32),
    }
    for name in _FILES:
        np.save(folder / f"{name}.npy", values[name])
    if not all(all(row.explained) for row in rows):
        _write_explained(folder, rows)


def _write_explained(folder: Path, rows: Sequence[TokenRow]) -> None:
    flags = [np.array([*[False] * row.start, *row.explained], dtype=np.bool_) for row in rows]
    np.save(folder / f"{_EXPLAINED}.npy", np.concatenate(flags))


def write_shown_ranges(bundle: Path, ranges: Sequence[tuple[Range, ...] | None]) -> None:
    """Store the characters of the tokens of those rows that have them here; nothing where none does."""
    if not any(ranges):
        return
    found = [np.array(one or (), dtype=np.int32).reshape(-1, 2) for one in ranges]
    values = np.concatenate(found), np.concatenate([[0], np.cumsum([len(one) for one in found])])
    for name, value in zip(_SHOWN, values, strict=True):
        np.save(bundle / "corpus" / f"{name}.npy", value)


class ShownRanges:
    """Characters of the shown completion that those tokens of a training example stand for that have factors, where the bundle keeps them."""

    def __init__(self, bundle: Path) -> None:
        ranges, offsets = _opened(bundle, _SHOWN) if _has(bundle, _SHOWN[0]) else (None, None)
        self._ranges, self._offsets = ranges, offsets

    def of(self, row: int) -> list[Range]:
        """One range per token; none where the text alone tells them."""
        if self._ranges is None or self._offsets is None:
            return []
        first, last = self._offsets[row : row + 2]
        return [(int(start), int(end)) for start, end in self._ranges[first:last]]


def _has(bundle: Path, name: str) -> bool:
    return (bundle / "corpus" / f"{name}.npy").is_file()


def _opened(bundle: Path, names: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Arrays of the bundle, memory-mapped.

    Raises:
        BundleCorrupt: one cannot be opened.
    """
    try:
        return [
            np.load(bundle / "corpus" / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in names
        ]
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{bundle}: the corpus' tokens cannot be opened: {error}") from error


class TokenRows:
    """Reads training examples of a bundle as tokens, by row."""

    def __init__(self, bundle: Path) -> None:
        self._ids, self._offsets, self._starts = _opened(bundle, _FILES)
        self._explained = _opened(bundle, [_EXPLAINED])[0] if _has(bundle, _EXPLAINED) else None

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, rows: Iterable[int] | npt.NDArray[np.int64]) -> list[TokenRow]:
        """The training examples of the given rows, in that order."""
        return [self._row(int(row)) for row in rows]

    def _row(self, row: int) -> TokenRow:
        ids = tuple(self._ids[self._offsets[row] : self._offsets[row + 1]].tolist())
        start = int(self._starts[row])
        if self._explained is None:
            return TokenRow(ids, start, (True,) * (len(ids) - start))
        flags = self._explained[self._offsets[row] + start : self._offsets[row + 1]]
        return TokenRow(ids, start, tuple(flags.tolist()))
