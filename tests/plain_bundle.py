"""Bundles of a few small files that no engine could open, with a manifest that is right: for what moves bundles about."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from wherefrom.attribution.bundles.manifest import (
    CARD,
    MANIFEST,
    CorpusEntry,
    Manifest,
    ModelEntry,
    Parameters,
    ProjectionEntry,
    hash_folder,
)

_MODEL = ModelEntry(
    name="tiny@1", base_folder="tiny", adapter_folder=None, weights_sha256="1" * 64, adapter_sha256=None,
    tokenizer_sha256="2" * 64, weight_bytes=1, parameters=1, layers=1, hidden_size=1,
)  # fmt: skip
_CORPUS = CorpusEntry(
    name="c", sha256="3" * 64, examples=1, tokens=1, completion_tokens=1, skipped=0, truncated=0
)
_PARAMETERS = Parameters(
    form="forward", layers=(1,), similarity_layer=1, damping=0.1, max_tokens=8, candidates=1, weight_influence=1,
    weight_bm25=0, weight_similarity=0, weight_encoder=0, weight_length=0,
)  # fmt: skip
_PROJECTION = ProjectionEntry(groups=1, rank_a=1, rank_b=1, dimensions=1, bytes=1, share_of_model=0.1)


def write_plain_bundle(folder: Path, contents: Mapping[str, bytes]) -> Manifest:
    """Write a bundle with these files and a card."""
    for name, content in {CARD: json.dumps({"quality": None}).encode(), **contents}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return seal_plain_bundle(folder)


def seal_plain_bundle(folder: Path, names: Mapping[str, str] | None = None) -> Manifest:
    """Write the manifest of what is in a folder.

    Args:
        folder: the bundle.
        names: names that the manifest gives files instead of their own.
    """
    files = {(names or {}).get(name, name): entry for name, entry in hash_folder(folder).items()}
    manifest = Manifest(
        name="", created_at=datetime(2026, 1, 31, tzinfo=UTC), model=_MODEL, corpus=_CORPUS, parameters=_PARAMETERS,
        projection=_PROJECTION, versions={}, files=files,
    ).sealed()  # fmt: skip
    (folder / MANIFEST).write_bytes(manifest.to_bytes())
    return manifest
