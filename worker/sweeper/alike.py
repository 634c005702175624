r"""Which outputs are alike, and what they found together. docs/adr/0020 has the reasons.

    s(x, y) = 1/2 cos(v(x), v(y)) + 1/2 cos(c(x), c(y))        v: similarity vector,  c: 1 / sqrt(rank) at each cited training example

An output joins the finding to whose exemplars it is most alike in the mean, from `LEAST` on. What joins none is clustered by average linkage, cut at the
same `LEAST`; `FOUNDERS` and more found a finding. Both rules ask the same question, so outputs that come together and those that come one by one end alike.
Nothing here knows a database.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

from db.grouping.finding_work import AlikeOutput, Grouped, Round

Matrix = npt.NDArray[np.float32]

#: Mean similarity from which on outputs belong together; chosen by `benchmarks/findings.py`.
LEAST = 0.3
#: Fewest outputs that found a finding.
FOUNDERS = 3


def group(done: Round, *, least: float = LEAST) -> Grouped:
    """Where the new outputs of a round go, and which of those that stand in no finding found one.

    Args:
        done: What there is; outputs whose vector has another length than most belong nowhere.
        least: Mean similarity from which on outputs belong together.
    """
    width = _common_length([*done.exemplars, *done.new, *done.loose])
    new, loose, exemplars = (
        [one for one in some if len(one.vector) == width] for some in (done.new, done.loose, done.exemplars)
    )
    placed: dict[int, int | None] = {one.audit_id: None for one in done.new}
    if not new:
        return Grouped(placed, ())
    similar = _Similarity([*new, *loose, *exemplars])
    count = len(new) + len(loose)
    joins = _join(
        similar.between(slice(len(new)), slice(count, None)), [one.finding_id for one in exemplars], least
    )
    placed |= {one.audit_id: finding for one, finding in zip(new, joins, strict=True)}
    left = [place for place in range(count) if place >= len(new) or joins[place] is None]
    if not any(place < len(new) for place in left):
        return Grouped(placed, ())
    outputs = [*new, *loose]
    clusters = _clusters(similar.between(left, left), least)
    founded = [[outputs[left[place]].audit_id for place in some] for some in clusters]
    return Grouped(placed, founded)


def _common_length(outputs: Sequence[AlikeOutput]) -> int:
    lengths, counts = np.unique([len(one.vector) for one in outputs if one.vector], return_counts=True)
    return int(lengths[counts.argmax()]) if len(lengths) else -1


class _Similarity:
    """Similarities of outputs, worked out in the blocks that are asked for."""

    def __init__(self, outputs: Sequence[AlikeOutput]) -> None:
        whole = np.frombuffer(b"".join(one.vector for one in outputs), dtype=np.int8)
        vectors = whole.reshape(len(outputs), -1).astype(np.float32)
        self._vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)  # [N, D]
        examples = {
            example: at for at, example in enumerate(sorted({e for one in outputs for e in one.cited}))
        }
        ends = np.cumsum([0, *(len(one.cited) for one in outputs)])
        columns = [examples[example] for one in outputs for example in one.cited]
        weights = np.array([rank**-0.5 for one in outputs for rank in one.cited.values()], dtype=np.float32)
        lengths = np.sqrt([sum(1 / rank for rank in one.cited.values()) for one in outputs])
        weights /= np.repeat(np.maximum(lengths, 1e-9), np.diff(ends)).astype(np.float32)
        self._cited = csr_array(
            (weights, columns, ends), shape=(len(outputs), max(len(examples), 1))
        )  # [N, E]

    def between(self, some: slice | Sequence[int], others: slice | Sequence[int]) -> Matrix:
        """Similarities `[S, O]` of some outputs with others, by place."""
        cosines = self._vectors[some] @ self._vectors[others].T
        shared = (self._cited[some] @ self._cited[others].T).toarray()
        found: Matrix = (0.5 * (cosines + shared)).astype(np.float32)
        return found


def _join(similar: Matrix, findings: Sequence[int | None], least: float) -> list[int | None]:
    """Of each output, the finding to whose exemplars it is most alike in the mean; None where it is to none.

    Args:
        similar: Similarities of outputs with exemplars, `[S, M]`.
        findings: The finding of each exemplar, `[M]`.
        least: Mean similarity from which on an output joins.
    """
    names, places = np.unique(np.array(findings, dtype=np.int64), return_inverse=True)
    if not len(names):
        return [None] * len(similar)
    counts = np.bincount(places)
    mean = csr_array((1.0 / counts[places], (np.arange(len(places)), places)))  # [M, F]
    means = similar @ mean  # [S, F]
    best = means.argmax(axis=1)
    return [
        int(names[place]) if means[row, place] >= least else None for row, place in enumerate(best.tolist())
    ]


def _clusters(similar: Matrix, least: float) -> list[list[int]]:
    """Places that belong together, `FOUNDERS` and more at a time, the largest first."""
    if len(similar) < FOUNDERS:
        return []
    distances = np.maximum(1.0 - similar, 0.0)
    np.fill_diagonal(distances, 0.0)
    labels = fcluster(
        linkage(squareform(distances, checks=False), "average"), 1.0 - least, criterion="distance"
    )
    clusters: dict[int, list[int]] = {}
    for place, label in enumerate(labels.tolist()):
        clusters.setdefault(label, []).append(place)
    return sorted((some for some in clusters.values() if len(some) >= FOUNDERS), key=len, reverse=True)
