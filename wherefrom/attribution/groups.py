r"""Near-duplicate groups of training examples: rows that say nearly the same, which hide each other when one is left out.

    J(x, y) = |S(x) & S(y)| / |S(x) | S(y)|,        S(x) = all runs of five words of prompt and completion

Rows are joined where J >= `THRESHOLD`, and a group is a connected component (single linkage). .6 is about where a text of 25 words has one
word changed: that breaks 5 of its 21 runs, so J = 16 / 26 = .62. A lower threshold joins rows that only share a template.

Pairs are found by MinHash (Broder 1997): the minima of 96 hash functions, cut into 32 bands of 3; two rows that agree on a whole band are compared
exactly. A pair at the threshold is met with probability 1 - (1 - .6^3)^32 = .9996. No random state: the same corpus gives the same groups.
Memory: 4 bytes per row, and parts of the rest, which stands in files. In a band's bucket each row is compared with at most `REPRESENTATIVES` groups, so that a
template that thousands of rows share does not cost the square of their number.
"""

import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.array_files import ArrayFile, OffsetsFile, mapped
from wherefrom.attribution.batching import in_parts
from wherefrom.errors import BundleCorrupt

#: File of a bundle with the group of each training example, int32 `[N]`.
GROUPS = "corpus/groups.npy"
#: Jaccard similarity from which two rows are near-duplicates.
THRESHOLD = 0.6
SHINGLE_WORDS = 5
REPRESENTATIVES = 16
_BANDS, _BAND_ROWS = 32, 3
_SEED = 20_261_122
#: Rows whose shingles, shingles whose hashes and rows whose minima are in memory at once.
_ROWS, _HASHES, _SORTED = 1024, 4096, 1 << 18
#: Rows of which the ranges of minima are told.
_SAMPLE = 1 << 16
_SHINGLES, _OFFSETS = "shingles", "offsets"

Groups = npt.NDArray[np.int32]
Rows = npt.NDArray[np.int64]
_Hashes = npt.NDArray[np.uint32]
_WORD = re.compile(r"\w+")


def near_duplicate_groups(
    texts: Iterable[str], *, threshold: float = THRESHOLD, home: Path | None = None
) -> Groups:
    """Group of each text, int32 `[N]`: the row of the group's first member.

    Args:
        texts: prompt and completion of each training example, in corpus order; read once.
        threshold: Jaccard similarity of word runs from which two texts belong together, (0, 1].
        home: folder for files that are there meanwhile; None takes the system's.
    """
    with TemporaryDirectory(dir=home) as folder:
        return _groups(_Sketches.write(texts, Path(folder)), threshold)


def _groups(sketches: "_Sketches", threshold: float) -> Groups:
    parents = np.arange(len(sketches), dtype=np.int32)
    for band in range(_BANDS):
        for bucket in _buckets(sketches.band(band)):
            _join(bucket, sketches, parents, threshold)
    return _roots(parents)


def jaccard(one: _Hashes, other: _Hashes) -> float:
    """Jaccard similarity of two sorted sets of hashes; 1 where both are empty."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    union = len(one) + len(other) - shared
    return shared / union if union else 1.0


def write_groups(bundle: Path, groups: Groups) -> None:
    """Store the group of each training example."""
    np.save(bundle / GROUPS, groups)


def read_groups(bundle: Path, examples: int) -> Groups:
    """The groups that a bundle stores, mapped; each example its own group in a bundle that stores none.

    Raises:
        BundleCorrupt: the file does not fit the corpus.
    """
    file = bundle / GROUPS
    if not file.is_file():
        return np.arange(examples, dtype=np.int32)
    try:
        groups = mapped(file)
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"{file}: the groups cannot be read: {error}") from error
    if groups.shape != (examples,) or groups.dtype != np.int32:
        raise BundleCorrupt(f"{file}: {groups.dtype} {groups.shape}, the corpus has {examples} examples")
    return np.asarray(groups)


def _shingles(text: str) -> _Hashes:
    """Hashes of all runs of five words, sorted and distinct; a shorter text is one run."""
    words = [zlib.crc32(word.encode("utf-8")) for word in _WORD.findall(text.lower())] or [
        zlib.crc32(text.strip().encode("utf-8"))
    ]
    codes = np.array(words, dtype=np.uint64)
    width = min(SHINGLE_WORDS, len(codes))
    mixed = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for step in range(width):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + codes[step : step + len(mixed)]
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    hashes: _Hashes = np.unique((mixed >> np.uint64(32)).astype(np.uint32))
    return hashes


class _Sketches:
    """Shingles and minima of all rows, in files; mapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shingles, self._offsets = self._mapped(_SHINGLES), self._mapped(_OFFSETS)

    @classmethod
    def write(cls, texts: Iterable[str], folder: Path) -> "_Sketches":
        """Compute them into a folder, part by part."""
        with ExitStack() as files:
            shingles, *bands = (
                files.enter_context(ArrayFile(folder / f"{name}.npy"))
                for name in (_SHINGLES, *map(str, range(_BANDS)))
            )
            offsets = files.enter_context(OffsetsFile(folder / f"{_OFFSETS}.npy"))
            for part in in_parts(texts, _ROWS):
                found = [_shingles(text) for text in part]
                shingles.append(np.concatenate(found))
                offsets.append_rows([len(one) for one in found])
                for band, minima in zip(bands, np.split(_signatures(found), _BANDS, axis=1), strict=True):
                    band.append(minima)
        return cls(folder)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> _Hashes:
        """Shingles of one row."""
        return self._shingles[self._offsets[row] : self._offsets[row + 1]]

    def band(self, number: int) -> _Hashes:
        """Minima of one band, `[N, 3]`."""
        return self._mapped(str(number))

    def _mapped(self, name: str) -> npt.NDArray[Any]:
        return np.asarray(mapped(self._folder / f"{name}.npy"))


def _signatures(shingles: Sequence[_Hashes]) -> _Hashes:
    """Minima of the hash functions over each row's shingles, `[R, 96]`."""
    drawn = np.random.default_rng(_SEED).integers(1, 2**63, size=(2, _BANDS * _BAND_ROWS), dtype=np.uint64)
    factors, offsets = drawn[0] | np.uint64(1), drawn[1]
    minima = np.full((len(shingles), _BANDS * _BAND_ROWS), np.iinfo(np.uint32).max, dtype=np.uint32)
    for row, hashes in enumerate(shingles):
        for first in range(0, len(hashes), _HASHES):
            some = hashes[first : first + _HASHES].astype(np.uint64)
            mixed = some[:, None] * factors + offsets  # [S, 96], modulo 2^64
            least = (mixed >> np.uint64(32)).min(axis=0).astype(np.uint32)
            np.minimum(minima[row], least, out=minima[row])
    return minima


def _buckets(columns: _Hashes) -> Iterator[Rows]:
    """Rows that agree on a band, in ascending order, by ascending minima; rows that stand alone are left out."""
    for rows in _ranges(columns):
        minima = columns[rows]
        order = np.lexsort(minima.T[::-1])  # stable: rows of equal minima ascend
        changes = (minima[order[1:]] != minima[order[:-1]]).any(axis=1)
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(rows)]])
        for place in np.flatnonzero(np.diff(starts) > 1):
            yield rows[order[starts[place] : starts[place + 1]]]


def _ranges(columns: _Hashes) -> Iterator[Rows]:
    """Rows by ranges of their first minimum, ascending, so that those of about `_SORTED` rows are sorted at once; rows of one minimum stay together."""
    sample = np.sort(columns[:: -(-len(columns) // _SAMPLE), 0])
    bounds = np.unique(sample[:: max(1, _SORTED * len(sample) // len(columns))][1:])
    for low, high in itertools.pairwise([0, *bounds.tolist(), 2**32]):
        found = [
            first + np.flatnonzero((part >= low) & (part < high))
            for first in range(0, len(columns), _SORTED)
            for part in [columns[first : first + _SORTED, 0]]
        ]
        yield np.concatenate(found)


def _join(bucket: Rows, shingles: _Sketches, parents: Groups, threshold: float) -> None:
    """Join the rows of one bucket that are near-duplicates."""
    representatives: list[int] = []
    for row in map(int, bucket):
        roots = {_root(parents, one) for one in representatives}
        if _root(parents, row) in roots:
            continue
        near = next(
            (one for one in representatives if jaccard(shingles[row], shingles[one]) >= threshold), None
        )
        if near is not None:
            first, last = sorted((_root(parents, row), _root(parents, near)))
            parents[last] = first
        elif len(representatives) < REPRESENTATIVES:
            representatives.append(row)


def _root(parents: Groups, row: int) -> int:
    """First member of the row's group; the way to it is shortened."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = int(parents[row])
    return row


def _roots(parents: Groups) -> Groups:
    """First members of the groups of all rows."""
    above = parents[parents]
    while (above != parents).any():
        parents, above = above, above[above]
    return above
