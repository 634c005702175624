"""Writes the features of a corpus and their projection into a bundle, as its form stores them; its texts, and what is made of them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
import torch

from wherefrom.attribution.array_files import ArrayFile, mapped
from wherefrom.attribution.arrays import write_parts
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.bundles.examples import iter_texts
from wherefrom.attribution.bundles.indexes import POOLED_VECTORS, PROJECTED_VECTORS
from wherefrom.attribution.bundles.manifest import ProjectionEntry
from wherefrom.attribution.cores import CoreStore, CoreWriter
from wherefrom.attribution.factors import Factors, FactorStore, FactorWriter, pack
from wherefrom.attribution.groups import near_duplicate_groups, write_groups
from wherefrom.attribution.models.reading import BundleForm, reads_adapter
from wherefrom.attribution.models.signals import Similarity
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.attribution.retrieval.encoder import (
    ENCODED,
    ENCODER,
    SentenceEncoder,
    copy_encoder,
)
from wherefrom.attribution.retrieval.lexical import write_lexical
from wherefrom.attribution.retrieval.pooling import Pooling
from wherefrom.attribution.retrieval.projection import Projection, choose_size
from wherefrom.attribution.row_curvature import RowCurvature

FEATURES, PROJECTION = "features", "projection.safetensors"
#: Rows whose states are turned, or whose texts are embedded, at once.
_ROWS = 8192


class WritesFeatures(Protocol):
    """Takes whitened factors of all rows in corpus order."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def append(self, factors: Factors, norms: Sequence[float]) -> None:
        """Add rows with their kernel norms."""

    def finish(self) -> None:
        """Complete the files."""


class _TokenWriter(FactorWriter):
    """Packs what it is given."""

    def append(self, factors: Factors, norms: Sequence[float]) -> None:  # type: ignore[override]  # whole factors here, packed ones there
        super().append(pack(factors), norms)


def feature_writer(bundle: Path, form: BundleForm, *, examples: int) -> WritesFeatures:
    """The writer of a form's features: the factors of every token, or one core per layer and example."""
    folder = bundle / FEATURES
    return CoreWriter(folder, examples) if reads_adapter(form) else _TokenWriter(folder)


def write_projection(
    bundle: Path, form: BundleForm, *, budget_bytes: int, device: torch.device
) -> ProjectionEntry:
    """Fit (on a device) and store the projection of features that are written, the projected vectors of the corpus, and in the forms that read an adapter what their rows share.

    Returns:
        The projection's size.
    """
    file, features = bundle / PROJECTION, bundle / FEATURES
    if reads_adapter(form):
        cores = CoreStore(bundle / FEATURES)
        CoreProjection.fit(cores, budget_bytes=budget_bytes, device=device).save(file)
        turned = CoreProjection.load(file).to(device)  # what is stored, not what was fitted
        groups, rank = cores.shape
        write_parts(features / PROJECTED_VECTORS, turned.apply_each(cores), count=len(cores))
        vectors = mapped(features / PROJECTED_VECTORS)
        RowCurvature.fit(vectors, cores.norms, numbers=groups * rank**2).save(features)
        return _entry(file, groups, (rank, rank), dimensions=turned.dimensions, budget_bytes=budget_bytes)
    store = FactorStore(bundle / FEATURES)
    sample = store.range(0, 1)
    groups, width_a, width_b = sample.a.shape[1], sample.a.shape[2], sample.b.shape[2]
    size = choose_size(
        groups=groups, width_a=width_a, width_b=width_b, examples=len(store), budget_bytes=budget_bytes
    )
    Projection.fit(store, size, device).save(file)
    projection = Projection.load(file).to(device)
    write_parts(features / PROJECTED_VECTORS, projection.apply_each(store), count=len(store))
    return _entry(
        file, groups, (size.rank_a, size.rank_b), dimensions=projection.dimensions, budget_bytes=budget_bytes
    )


def write_pooled(features: Path, similarity: Similarity, states: Path) -> None:
    """What similarity compares, and its centre.

    Args:
        features: the bundle's folder of features.
        similarity: which states they are.
        states: `.npy` file of the corpus' mean states `[N, D]`; read in parts.
    """
    # mapped copy-on-write, because torch takes no array that it may not write to; nothing is written
    held = torch.from_numpy(np.load(states, mmap_mode="c", allow_pickle=False))
    pooling = Pooling.fit(held, similarity)
    pooling.save(features)
    parts = (pooling.apply(part) for part in held.split(_ROWS))
    write_parts(features / POOLED_VECTORS, parts, count=len(held))


def write_words(bundle: Path) -> None:
    """What is made of the words of the texts, which stand in the bundle that is being built: BM25, near-duplicate groups."""
    write_lexical(iter_texts(bundle), bundle / "lexical")
    write_groups(bundle, near_duplicate_groups(iter_texts(bundle), home=bundle))


def write_encoded(bundle: Path, folder: Path, encoder: SentenceEncoder) -> None:
    """A sentence encoder and its vectors of the corpus.

    Args:
        bundle: folder that is being built; the texts stand there.
        folder: the encoder's own folder.
        encoder: the encoder, loaded.
    """
    copy_encoder(folder, bundle / ENCODER)
    embed_texts(encoder, iter_texts(bundle), bundle / FEATURES / ENCODED)


def embed_texts(encoder: SentenceEncoder, texts: Iterable[str], file: Path) -> None:
    """Write the vectors of texts, in order."""
    with ArrayFile(file) as vectors:
        for part in in_parts(texts, _ROWS):
            vectors.append(encoder.embed(part))


def write_no_calibration(bundle: Path) -> None:
    """The calibration of a bundle that has none yet."""
    content = {
        "fitted": False,
        "reason": "neither controls nor a bank of retrained models were given, so confidence and effect_nats stay empty",
    }
    (bundle / "calibration.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _entry(
    file: Path, groups: int, ranks: tuple[int, int], *, dimensions: int, budget_bytes: int
) -> ProjectionEntry:
    size_bytes = file.stat().st_size
    return ProjectionEntry(
        groups=groups,
        rank_a=ranks[0],
        rank_b=ranks[1],
        dimensions=dimensions,
        bytes=size_bytes,
        share_of_model=size_bytes / budget_bytes,
    )
