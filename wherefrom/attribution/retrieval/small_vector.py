r"""A query's similarity vector in a few hundred bytes, for finding outputs that say the same kind of thing.

    q(s) = round(127 P s / max |P s|)       P: the identity up to `MAX_VECTOR_BYTES` numbers, else a fixed random projection to so many

int8 keeps the cosine of two vectors to about .01. The projection is drawn from a fixed seed, so equal outputs of one bundle have equal vectors.
"""

import numpy as np

from wherefrom.attribution.fusion import Scores
from wherefrom.records.bounds import MAX_VECTOR_BYTES

_SEED = 20_261_127
_LARGEST = 127


def small_vector(pooled: Scores) -> bytes | None:
    """The vector of one query as int8; None where it has no direction.

    Args:
        pooled: What similarity compares (`pooling`), float32, `[D]`.
    """
    wide = np.asarray(pooled, dtype=np.float32).ravel()
    if len(wide) > MAX_VECTOR_BYTES:
        generator = np.random.default_rng(_SEED)
        wide = wide @ generator.standard_normal((len(wide), MAX_VECTOR_BYTES), dtype=np.float32)
    largest = float(np.abs(wide).max(initial=0.0))
    if not np.isfinite(largest) or largest == 0.0:
        return None
    small: bytes = np.rint(wide * (_LARGEST / largest)).astype(np.int8).tobytes()
    return small
