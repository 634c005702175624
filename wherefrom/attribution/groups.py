r"""Near-duplicate groups of training examples: rows that say nearly the same, which hide each other when one is left out.

    J(x, y) = |S(x) & S(y)| / |S(x) | S(y)|,        S(x) = all runs of five words of prompt and completion

Rows are joined where J >= `THRESHOLD`, and a group is a connected component (single linkage). .6 is about where a text of 25 words has one
word changed: that breaks 5 of its 21 runs, so J = 16 / 26 = .62. A lower threshold joins rows that only share a template.

Pairs are found by MinHash (Broder 1997): the minima of 96 hash functions, cut into 32 bands of 3; two rows that agree on a whole band are compared
exactly. A pair at the threshold is met with probability 1 - (1 - .6^3)^32 = .9996. No random state: the same corpus gives the same groups.
Memory: 4 bytes per word and 384 per row. In a band's bucket each row is compared with at most `REPRESENTATIVES` groups, so that a
template that thousands of rows share does not cost the square of their number.
"""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wherefrom.errors import BundleCorrupt

#: File of a bundle with the group of each training example, int32 `[N]`.
GROUPS = "corpus/groups.npy"
#: Jaccard similarity from which two rows are near-duplicates.
THRESHOLD = 0.6
SHINGLE_WORDS = 5
REPRESENTATIVES = 16
_BANDS, _BAND_ROWS = 32, 3
_SEED = 20_261_122

Groups = npt.NDArray[np.int32]
_Hashes = npt.NDArray[np.uint32]
_WORD = re.compile(r"\w+")


def near_duplicate_groups(texts: Iterable[str], *, threshold: float = THRESHOLD) -> Groups:
    """Group of each text, int32 `[N]`: the row of the group's first member.

    Args:
        texts: prompt and completion of each training example, in corpus order; read once.
        threshold: Jaccard similarity of word runs from which two texts belong together, (0, 1].
    """
    shingles = [_shingles(text) for text in texts]
    minima = _signatures(shingles)  # [N, 96]
    parents = np.arange(len(shingles), dtype=np.int32)
    for band in range(_BANDS):
        columns = np.ascontiguousarray(minima[:, band * _BAND_ROWS : (band + 1) * _BAND_ROWS])
        for bucket in _buckets(columns):
            _join(bucket, shingles, parents, threshold)
    return np.array([_root(parents, row) for row in range(len(parents))], dtype=np.int32)


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
        groups = np.load(file, mmap_mode="r", allow_pickle=False)
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


def _signatures(shingles: list[_Hashes]) -> _Hashes:
    """Minima of the hash functions over each row's shingles, `[N, 96]`."""
    drawn = np.random.default_rng(_SEED).integers(1, 2**63, size=(2, _BANDS * _BAND_ROWS), dtype=np.uint64)
    factors, offsets = drawn[0] | np.uint64(1), drawn[1]
    minima = np.empty((len(shingles), _BANDS * _BAND_ROWS), dtype=np.uint32)
    for row, hashes in enumerate(shingles):
        mixed = hashes.astype(np.uint64)[:, None] * factors + offsets  # [S, 96], modulo 2^64
        minima[row] = (mixed >> np.uint64(32)).min(axis=0)
    return minima


def _buckets(columns: _Hashes) -> Iterable[npt.NDArray[np.int64]]:
    """Rows that agree on a band, in ascending order; rows that stand alone are left out."""
    _, inverse, counts = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(counts)
    for end, count in zip(ends, counts, strict=True):
        if count > 1:
            yield order[end - count : end]


def _join(bucket: npt.NDArray[np.int64], shingles: list[_Hashes], parents: Groups, threshold: float) -> None:
    """Join the rows of one bucket that are near-duplicates."""
    representatives: list[int] = []
    for row in bucket.tolist():
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
