"""Rows of a corpus in a file, read back when they are wanted: a build takes them through several stages, and they may not fit into memory."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from wherefrom.attribution.array_files import OffsetsFile, mapped
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.corpus.rows import CorpusRow
from wherefrom.records import Turn

_ROWS, _OFFSETS = "rows.jsonl", "rows_offsets.npy"
#: Rows that are written at once.
_AT_ONCE = 1024


class StoredRows(Sequence[CorpusRow]):
    """The rows that `store_rows` wrote into a folder, equal to those that it was given."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / _ROWS
        self._offsets = mapped(folder / _OFFSETS)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __iter__(self) -> Iterator[CorpusRow]:
        with self._file.open("rb") as lines:
            yield from map(_row, lines)

    @overload
    def __getitem__(self, place: int, /) -> CorpusRow: ...

    @overload
    def __getitem__(self, place: slice, /) -> list[CorpusRow]: ...

    def __getitem__(self, place: int | slice, /) -> CorpusRow | list[CorpusRow]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        row = range(len(self))[place]
        with self._file.open("rb") as lines:
            lines.seek(int(self._offsets[row]))
            return _row(lines.readline())


def store_rows(rows: Iterable[CorpusRow], folder: Path) -> StoredRows:
    """Write rows into a folder, one after the other."""
    with (folder / _ROWS).open("wb") as lines, OffsetsFile(folder / _OFFSETS) as offsets:
        for part in in_parts(rows, _AT_ONCE):
            offsets.append_rows([lines.write(_line(row)) for row in part])
    return StoredRows(folder)


def _line(row: CorpusRow) -> bytes:
    held = vars(row) | {"turns": [turn.for_template() for turn in row.turns]}
    return json.dumps({name: held[name] for name in CorpusRow.__dataclass_fields__}).encode("ascii") + b"\n"


def _row(line: bytes) -> CorpusRow:
    held: dict[str, Any] = json.loads(line)
    turns = tuple(Turn.model_validate(turn) for turn in held.pop("turns"))
    return CorpusRow(turns=turns, trained=tuple(held.pop("trained")), **held)
