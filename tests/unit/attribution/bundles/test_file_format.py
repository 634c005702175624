"""What releases that run side by side can open: a bundle of a newer one is told from a damaged one, and files change with their format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.tiny import (
    build,
    changed_json,
    shared_corpus,
    shared_micro_bundle,
    shared_micro_model,
    write_adapter,
)
from wherefrom.attribution.bundles.erasing import forget_examples
from wherefrom.attribution.bundles.file_format import NEWEST_FORMAT
from wherefrom.attribution.bundles.manifest import MANIFEST, Manifest, read_manifest
from wherefrom.attribution.gradient_sketch import load_roots
from wherefrom.errors import BundleCorrupt, BundleTooNew

#: Of every bundle: number type and dimensions of its arrays.
_ALL = {
    "corpus/groups.npy": "int32 1",
    "corpus/offsets.npy": "int64 1",
    "corpus/token_ids.npy": "int32 1",
    "corpus/token_offsets.npy": "int64 1",
    "corpus/token_starts.npy": "int32 1",
    "features/norms.npy": "float32 1",
    "features/offsets.npy": "int64 1",
    "features/pooled.npy": "float32 2",
    "features/pooled_centre.npy": "float32 1",
    "features/vectors.npy": "float32 2",
    "index/originals.npy": "int64 1",
    "lexical/data.csc.index.npy": "float32 1",
    "lexical/indices.csc.index.npy": "int32 1",
    "lexical/indptr.csc.index.npy": "int64 1",
    "whitening.safetensors": "a F32 3, b F32 3",
}
_FORWARD = _ALL | {
    "features/a.npy": "int8 3",
    "features/a_scale.npy": "float32 2",
    "features/b.npy": "int8 3",
    "features/b_scale.npy": "float32 2",
    "projection.safetensors": "bases_a F16 3, bases_b F16 3, core I8 2, core_scale F32 1",
}
_ADAPTER = _ALL | {
    "features/core_scales.npy": "float32 2",
    "features/cores.npy": "int8 3",
    "features/final.npy": "int8 3",
    "features/final_scales.npy": "float32 2",
    "features/final_whitening.safetensors": "roots F16 3, scales F32 1",
    "features/row_curvature.npy": "float32 2",
    "features/sketch_scales.npy": "float32 1",
    "features/sketches.npy": "int8 2",
    "projection.safetensors": "directions I8 2, directions_scale F32 1",
}
_COMPACT = _ADAPTER | {
    "features/core_scales.npy": "float16 2",
    "features/cores.npy": "uint8 3",
    "features/final.npy": "uint8 3",
    "features/final_scales.npy": "float16 2",
    "features/sketch_scales.npy": "float16 1",
    "features/sketches.npy": "uint8 2",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds an adapter, and the bundles of it; nobody changes them."""
    folder = tmp_path_factory.mktemp("formats")
    adapter = write_adapter(folder / "adapter", shared_micro_model())
    for features in ("exact", "compact"):
        build(shared_micro_model(), shared_corpus(40), folder / features, adapter=adapter, features=features)
    return folder


def _layout(bundle: Path) -> dict[str, str]:
    """Number types and dimensions of everything in a bundle that has some."""
    arrays = {file: np.load(file, mmap_mode="r") for file in bundle.rglob("*.npy")}
    found = {file: f"{array.dtype} {array.ndim}" for file, array in arrays.items()}
    for file in bundle.rglob("*.safetensors"):
        with safe_open(file, framework="np") as stored:
            parts = {name: stored.get_slice(name) for name in sorted(stored.keys())}
            found[file] = ", ".join(
                f"{name} {part.get_dtype()} {len(part.get_shape())}" for name, part in parts.items()
            )
    return {str(file.relative_to(bundle)): kinds for file, kinds in found.items()}


@pytest.mark.parametrize(
    ("made", "layout", "needed"),
    [("forward", _FORWARD, None), ("exact", _ADAPTER, 2), ("compact", _COMPACT, 2)],
)
def test_files_are_those_of_the_format(
    folder: Path, made: str, layout: dict[str, str], needed: int | None
) -> None:
    """An array of another type or shape is read wrongly by the release before, or is a bug there: give it a format of its own (`NEWEST_FORMAT`), and have `format_of` name it."""
    bundle = shared_micro_bundle() if made == "forward" else folder / made
    assert _layout(bundle) == layout
    assert read_manifest(bundle).format == needed
    assert (b'"format": 2' in (bundle / MANIFEST).read_bytes()) == (needed == 2)


def test_a_derived_bundle_needs_what_its_files_need(folder: Path, tmp_path: Path) -> None:
    """It has the whitening of the bundle that it was made of."""
    forget_examples(folder / "exact", tmp_path / "less", ["tiny-0003"])
    assert read_manifest(tmp_path / "less").format == 2


def _resealed(bundle: Path, **changes: Any) -> None:
    """Give a manifest other values, and the name and seal that belong to them."""
    manifest = read_manifest(bundle).model_copy(update=changes).sealed()
    (bundle / MANIFEST).write_bytes(manifest.to_bytes())


def test_a_newer_format_is_refused(micro_bundle: Path) -> None:
    """The manifest is right in every way: only its files are unknown here. The text says what to do."""
    _resealed(micro_bundle, format=NEWEST_FORMAT)
    assert read_manifest(micro_bundle).format == NEWEST_FORMAT
    _resealed(micro_bundle, format=NEWEST_FORMAT + 1)
    with pytest.raises(
        BundleTooNew, match=rf"format {NEWEST_FORMAT + 1}, only .*; run the newer release, or activate"
    ):
        read_manifest(micro_bundle)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sharding": {"parts": 4}}, "sharding"),
        ({"schema": 4}, "schema"),
        ({"schema": 4, "later": 1}, "schema, later"),
    ],
)
def test_what_only_a_newer_release_says_is_not_called_damage(
    micro_bundle: Path, changes: dict[str, Any], named: str
) -> None:
    """Nobody is told to build a bundle again that is as it should be."""
    changed_json(micro_bundle / MANIFEST, changes)
    with pytest.raises(BundleTooNew, match=f"does not know {named};"):
        read_manifest(micro_bundle)


@pytest.mark.parametrize(
    "changes", [{"schema": 2}, {"schema": "4"}, {"later": 1, "files": []}, {"format": 0}]
)
def test_an_older_or_damaged_manifest_is_not_called_newer(
    micro_bundle: Path, changes: dict[str, Any]
) -> None:
    """These must be built again."""
    changed_json(micro_bundle / MANIFEST, changes)
    with pytest.raises(BundleCorrupt, match="rebuild the bundle of an older release"):
        read_manifest(micro_bundle)


def test_bundles_from_before_formats_keep_their_names(micro_bundle: Path) -> None:
    """Where no format is named, none is written: name and bytes of the manifest stay."""
    manifest = Manifest.model_validate_json((micro_bundle / MANIFEST).read_bytes())
    assert manifest.format is None
    assert "format" not in manifest.model_dump(by_alias=True)


def test_whitening_is_read_with_its_scales(folder: Path) -> None:
    """What the release before does not know: without the scales, no root is larger than 1."""
    with safe_open(folder / "exact" / "features" / "final_whitening.safetensors", framework="pt") as stored:
        assert stored.get_tensor("roots").abs().max() <= 1.0
    assert load_roots(folder / "exact" / "features", torch.device("cpu")).abs().max() > 1.0
