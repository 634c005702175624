"""The corpus as the model saw it: token ids of every training example, kept in the bundle for what must run the model on examples again.

Three flat `.npy` files, memory-mapped: ids int32 of all rows behind each other, offsets int64 `[N + 1]`, and where each completion starts int32 `[N]`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import BundleCorrupt

_FILES = ("token_ids", "token_offsets", "token_starts")


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


class TokenRows:
    """Reads training examples of a bundle as tokens, by row."""

    def __init__(self, bundle: Path) -> None:
        try:
            self._ids, self._offsets, self._starts = (
                np.load(bundle / "corpus" / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in _FILES
            )
        except (OSError, ValueError) as error:
            raise BundleCorrupt(f"{bundle}: the corpus' tokens cannot be opened: {error}") from error

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, rows: Iterable[int] | npt.NDArray[np.int64]) -> list[TokenRow]:
        """The training examples of the given rows, in that order; every completion token is explained."""
        return [self._row(int(row)) for row in rows]

    def _row(self, row: int) -> TokenRow:
        ids = tuple(self._ids[self._offsets[row] : self._offsets[row + 1]].tolist())
        start = int(self._starts[row])
        return TokenRow(ids, start, (True,) * (len(ids) - start))
