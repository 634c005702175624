"""What an index loses against exact search, on rows of the corpus as queries."""

import numpy as np

from wherefrom.attribution.retrieval.index import VectorIndex, Vectors, VectorSource, chunks_of, evenly

#: Neighbours that are looked for.
RECALL_AT = 100
#: Rows that are queries, evenly over the corpus.
SAMPLED_ROWS = 64
#: By how much an inner product in float32 may differ with the order of its sum.
_ROUNDING = 1e-5


def recall_of(index: VectorIndex, vectors: VectorSource, *, count: int = RECALL_AT) -> float:
    """Mean share of the exact `count` nearest (fewer in a smaller corpus) that the index finds, in [0, 1]; of equally near rows, any count.

    Args:
        index: the approximate one.
        vectors: what it holds, `[N, P]`; read once, part by part.
        count: neighbours.
    """
    total = len(vectors)
    wanted = min(count, total)
    queries = vectors[evenly(total, SAMPLED_ROWS)]
    least = _score_of_last(queries, vectors, wanted)
    shares = []
    for query, worst in zip(queries, least, strict=True):
        found = np.unique(index.search(query, wanted)[0])
        shares.append(float((vectors[found] @ query >= worst - _ROUNDING).sum()) / wanted)
    return float(np.mean(shares))


def _score_of_last(queries: Vectors, vectors: VectorSource, count: int) -> Vectors:
    """Inner product of the last of the exact `count` nearest of each query, `[Q]`."""
    best = np.full((len(queries), count), -np.inf, dtype=np.float32)
    for _, part in chunks_of(vectors):
        both = np.concatenate([best, queries @ part.T], axis=1)
        best = np.partition(both, both.shape[1] - count, axis=1)[:, -count:]
    least: Vectors = best.min(axis=1)
    return least
