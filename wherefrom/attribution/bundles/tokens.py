"""The corpus as the model saw it: token ids of every training example, kept in the bundle for what must run the model on examples again.

Three flat `.npy` files, memory-mapped: ids int32 of all rows behind each other, offsets int64 `[N + 1]`, and where each completion starts int32 `[N]`. Where rows
hold several trained turns there are three more: which tokens are explained, bool like the ids, and for the rows whose tokens cannot be found again from the shown
text their characters in it, int32 `[E, 2]`, with offsets int64 `[N + 1]`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import ArrayFile, OffsetsFile, mapped
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.models.ranges import Range
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt

_IDS, _OFFSETS, _STARTS = "token_ids", "token_offsets", "token_starts"
_EXPLAINED = "token_explained"
_SHOWN = ("shown_ranges", "shown_offsets")
#: Rows that are written at once.
ROWS_AT_ONCE = 1024


class TokenWriter:
    """Appends training examples as tokens, in corpus order; the files are complete when the block ends."""

    def __init__(self, bundle: Path) -> None:
        self._folder = _made(bundle)
        self._files = {name: ArrayFile(self._folder / f"{name}.npy") for name in (_IDS, _STARTS, _EXPLAINED)}
        self._offsets = OffsetsFile(self._folder / f"{_OFFSETS}.npy")
        self._all_explained = True

    @property
    def tokens(self) -> int:
        """Tokens so far."""
        return self._offsets.end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._files.values(), self._offsets):
            file.close()
        if self._all_explained:
            (self._folder / f"{_EXPLAINED}.npy").unlink()

    def append(self, rows: Sequence[TokenRow]) -> None:
        """Add some rows, at least one."""
        flags = [np.array([*[False] * row.start, *row.explained], dtype=np.bool_) for row in rows]
        values = {
            _IDS: np.concatenate([np.array(row.ids, dtype=np.int32) for row in rows]),
            _STARTS: np.array([row.start for row in rows], dtype=np.int32),
            _EXPLAINED: np.concatenate(flags),
        }
        for name, value in values.items():
            self._files[name].append(value)
        self._offsets.append_rows([len(row.ids) for row in rows])
        self._all_explained &= all(all(row.explained) for row in rows)


def write_token_rows(bundle: Path, rows: Iterable[TokenRow]) -> None:
    """Store the tokens of all training examples, in corpus order."""
    with TokenWriter(bundle) as written:
        for part in in_parts(rows, ROWS_AT_ONCE):
            written.append(part)


class ShownRangesWriter:
    """Appends the characters of the tokens of those rows that have them here; where none has, there is no file at the end."""

    def __init__(self, bundle: Path) -> None:
        self._folder = _made(bundle)
        ranges, offsets = (self._folder / f"{name}.npy" for name in _SHOWN)
        self._ranges, self._offsets = ArrayFile(ranges), OffsetsFile(offsets)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (self._ranges, self._offsets):
            file.close()
        if not self._offsets.end:
            for name in _SHOWN:
                (self._folder / f"{name}.npy").unlink()

    def append(self, ranges: Sequence[tuple[Range, ...] | None]) -> None:
        """Add some rows, at least one."""
        found = [np.array(one or (), dtype=np.int32).reshape(-1, 2) for one in ranges]
        self._ranges.append(np.concatenate(found))
        self._offsets.append_rows([len(one) for one in found])


def write_shown_ranges(bundle: Path, ranges: Iterable[tuple[Range, ...] | None]) -> None:
    """Store the characters of the tokens of those rows that have them here; nothing where none does."""
    with ShownRangesWriter(bundle) as written:
        for part in in_parts(ranges, ROWS_AT_ONCE):
            written.append(part)


def _made(bundle: Path) -> Path:
    folder = bundle / "corpus"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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

    def __bool__(self) -> bool:
        """Whether the bundle keeps any."""
        return self._ranges is not None


def _has(bundle: Path, name: str) -> bool:
    return (bundle / "corpus" / f"{name}.npy").is_file()


def _opened(bundle: Path, names: Sequence[str]) -> list[npt.NDArray[Any]]:
    """Arrays of the bundle, memory-mapped.

    Raises:
        BundleCorrupt: one cannot be opened.
    """
    try:
        return [mapped(bundle / "corpus" / f"{name}.npy") for name in names]
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{bundle}: the corpus' tokens cannot be opened: {error}") from error


class TokenRows(Sequence[TokenRow]):
    """Reads training examples of a bundle as tokens, by row."""

    def __init__(self, bundle: Path) -> None:
        self._ids, self._offsets, self._starts = _opened(bundle, (_IDS, _OFFSETS, _STARTS))
        self._explained = _opened(bundle, [_EXPLAINED])[0] if _has(bundle, _EXPLAINED) else None

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, place: int, /) -> TokenRow: ...

    @overload
    def __getitem__(self, place: slice, /) -> list[TokenRow]: ...

    def __getitem__(self, place: int | slice, /) -> TokenRow | list[TokenRow]:
        found = range(len(self))[place]
        return self._row(found) if isinstance(found, int) else self.read(found)

    def read(self, rows: Iterable[int] | npt.NDArray[np.int64]) -> list[TokenRow]:
        """The training examples of the given rows, in that order."""
        return [self._row(int(row)) for row in rows]

    def tokens(self, first: int, last: int) -> int:
        """Tokens of the rows `first` to `last` (excluded); at most those that there are."""
        start, end = self._offsets[[min(first, len(self)), min(last, len(self))]]
        return int(end - start)

    def explained_tokens(self) -> int:
        """Tokens of all rows that are to be explained."""
        if self._explained is not None:
            return int(np.count_nonzero(self._explained))
        return int(self._offsets[-1]) - int(self._starts.sum(dtype=np.int64))

    def _row(self, row: int) -> TokenRow:
        ids = tuple(self._ids[self._offsets[row] : self._offsets[row + 1]].tolist())
        start = int(self._starts[row])
        if self._explained is None:
            return TokenRow(ids, start, (True,) * (len(ids) - start))
        flags = self._explained[self._offsets[row] + start : self._offsets[row + 1]]
        return TokenRow(ids, start, tuple(flags.tolist()))
