"""A part of a corpus: consecutive shards that one machine reads at once, from a file to files.

Nothing here knows who asks, or where the files are kept. The same rows read by the same model give the same bytes, so a part may be computed twice, and its files may be named by their content.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wherefrom.attribution.array_files import write_arrays
from wherefrom.attribution.bundles.shards import SHARD_ROWS, are_large, compute_shard, write_shard
from wherefrom.attribution.interface import PartFiles
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.whitening import SecondMoments
from wherefrom.errors import BundleCorrupt

#: Shards of a part where nobody chose: at eight, second moments of a wide model are 1 GB for 1,024 rows.
PART_SHARDS = 8


@dataclass(frozen=True)
class Part:
    """Which rows of a corpus a part has."""

    number: int
    #: Place of the first row, from 0.
    first: int
    rows: int

    @property
    def shards(self) -> range:
        """Numbers of its shards."""
        begin = self.first // SHARD_ROWS
        return range(begin, begin - (-self.rows // SHARD_ROWS))


def parts_of(rows: int, shards: int) -> list[Part]:
    """The parts of a corpus.

    Args:
        rows: of the corpus.
        shards: of one part.
    """
    size = shards * SHARD_ROWS
    return [Part(number, first, min(size, rows - first)) for number, first in enumerate(range(0, rows, size))]


def write_rows(path: Path, rows: Sequence[TokenRow]) -> None:
    """Write the rows of a part as tokens; the same rows give the same bytes."""
    write_arrays(
        path,
        ids=np.concatenate([np.array(row.ids, dtype=np.int32) for row in rows]),
        lengths=np.array([len(row.ids) for row in rows], dtype=np.int64),
        starts=np.array([row.start for row in rows], dtype=np.int64),
        explained=np.concatenate([np.array(row.explained, dtype=np.bool_) for row in rows]),
    )


def read_part_rows(path: Path) -> list[TokenRow]:
    """The rows of a part.

    Raises:
        BundleCorrupt: the file is none of `write_rows`.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            ids, lengths, starts, explained = (
                stored[name] for name in ("ids", "lengths", "starts", "explained")
            )
    except (OSError, ValueError, KeyError) as error:
        raise BundleCorrupt(f"{path}: no rows of a build: {error}") from error
    flags = np.split(explained, np.cumsum(lengths - starts)[:-1])
    rows = zip(np.split(ids, np.cumsum(lengths)[:-1]), starts, flags, strict=True)
    return [TokenRow(tuple(one.tolist()), int(start), tuple(flag.tolist())) for one, start, flag in rows]


def compute_part(
    rows: Sequence[TokenRow],
    reader: ReadsSignals,
    *,
    first: int,
    folder: Path,
    keep_going: Callable[[], None],
) -> PartFiles:
    """Run a part through the model and write its shards and their second moments.

    Args:
        rows: of the part.
        reader: of the bundle.
        first: place of the first row in the corpus, from 0.
        folder: gets the files; it exists.
        keep_going: called before each shard; what it raises ends the work.

    Raises:
        UnusableModel, OutOfMemory: see `compute_shard`.
    """
    shards: list[Path] = []
    moments: list[SecondMoments] = []
    for place in range(0, len(rows), SHARD_ROWS):
        keep_going()
        raw = compute_shard(rows[place : place + SHARD_ROWS], reader, first=first + place)
        shards.append(folder / f"shard-{len(shards)}.npz")
        write_shard(shards[-1], raw)
        found = SecondMoments.of(raw.a, raw.b)
        # Added up shard after shard, as a build on one machine does it, where there is room to keep them apart.
        if moments and are_large(found):
            moments[0].merge(found)
        else:
            moments.append(found)
    return PartFiles(tuple(shards), _write_moments(folder / "moments.npz", moments))


def _write_moments(path: Path, moments: Sequence[SecondMoments]) -> Path:
    write_arrays(
        path,
        a=np.stack([one.a for one in moments]),
        b=np.stack([one.b for one in moments]),
        count=np.array([one.count for one in moments], dtype=np.int64),
    )
    return path


def read_moments(paths: Iterable[Path]) -> Iterator[SecondMoments]:
    """The second moments of parts, in the order of their shards.

    Raises:
        BundleCorrupt: a file holds none.
    """
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as stored:
                a, b, count = stored["a"], stored["b"], stored["count"]
        except (OSError, ValueError, KeyError) as error:
            raise BundleCorrupt(f"{path}: no second moments of a build: {error}") from error
        for number in range(len(count)):
            yield SecondMoments(a[number], b[number], int(count[number]))
