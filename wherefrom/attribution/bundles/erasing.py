"""Erases training examples from a bundle by writing a new one without them.

hnswlib's own deletion marks a vector and leaves it in the file, and a bundle never changes, so the old bundle must go as a whole. The new one is written beside its place
and takes it in one step; a kill leaves the old bundle as it was. It has no signature: whoever signs says so of these bytes.
"""

import itertools
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from wherefrom.atomic import atomic_folder
from wherefrom.attribution.batching import in_parts
from wherefrom.attribution.bundles.deriving import (
    Change,
    check_known_files,
    finish,
    link_or_copy,
    share_files,
    write_searched,
)
from wherefrom.attribution.bundles.examples import ExampleTexts
from wherefrom.attribution.bundles.indexes import IndexWishes, driver_of
from wherefrom.attribution.bundles.manifest import MANIFEST, Manifest, read_manifest
from wherefrom.attribution.bundles.row_arrays import Rows, keep_rows
from wherefrom.attribution.bundles.signing import sign_bundle
from wherefrom.attribution.bundles.tokens import ROWS_AT_ONCE
from wherefrom.attribution.bundles.work_folder import check_out, open_to_readers
from wherefrom.attribution.ekfac.factors import NORMS
from wherefrom.attribution.ekfac.path import FOLDER as EKFAC
from wherefrom.errors import BundleCorrupt, ConfigurationError, NotFound
from wherefrom.index_settings import MilvusServer
from wherefrom.records import TrainingExample

#: Ids that an error names.
_NAMED = 3


@dataclass(frozen=True)
class Erased:
    """What became of a request."""

    manifest: Manifest
    #: Ids of the training examples that the new bundle lacks.
    example_ids: tuple[str, ...]
    signed: bool


def copies_of(examples: Iterable[TrainingExample], wanted: Collection[str]) -> list[str]:
    """Ids of other training examples with exactly the text of one whose id is wanted; the examples are read twice."""
    texts = {one.text_sha256 for one in examples if one.example_id in wanted}
    return [one.example_id for one in examples if one.text_sha256 in texts and one.example_id not in wanted]


def forget_examples(
    bundle: Path,
    out: Path,
    example_ids: Collection[str],
    *,
    copies: bool = False,
    key: Path | None = None,
    milvus: MilvusServer | None = None,
) -> Erased:
    """Write the bundle `out`: `bundle` without some training examples.

    Args:
        bundle: an intact bundle; it is not changed.
        out: folder of the new bundle.
        example_ids: which examples.
        copies: whether other examples with exactly the same text go too. Without it they are an error, because the text would stay.
        key: file with the private key that signs the new bundle; None leaves it unsigned.
        milvus: where Milvus is, for a bundle whose indexes are there. The old collections stay until somebody drops them there.

    Raises:
        NotFound: the bundle has no example of an id; nothing was written.
        ConfigurationError: `out` exists, nothing would be left, copies of a text would stay, or the bundle's index driver cannot work here.
        BundleCorrupt: the bundle is not intact, or has a file that this release does not know.
        IndexUnavailable: the server of its indexes does not answer.
        DiskFull: there is nothing at `out`.
    """
    check_out(out)
    manifest = read_manifest(bundle)
    check_known_files(bundle, manifest)
    IndexWishes(driver_of(manifest), milvus=milvus).check()
    examples, wanted = ExampleTexts(bundle), set(example_ids)
    if copies:
        wanted |= set(copies_of(examples, wanted))
    _check(bundle, examples, wanted)
    kept = np.fromiter(
        (row for row, one in enumerate(examples) if one.example_id not in wanted), dtype=np.int64
    )
    with atomic_folder(out) as work:
        made = _write(bundle, work, manifest, kept=kept, examples=examples, milvus=milvus)
        if key is not None:
            sign_bundle(work, key)
    return Erased(made, tuple(sorted(wanted)), signed=key is not None)


def _check(bundle: Path, examples: ExampleTexts, wanted: set[str]) -> None:
    missing = sorted(wanted.difference(one.example_id for one in examples))
    if missing:
        raise NotFound(f"{bundle} has no training example {_named(missing)}; nothing was written")
    if len(wanted) >= len(examples):
        raise ConfigurationError(f"nothing would be left of {bundle}; delete the bundle instead")
    if same := copies_of(examples, wanted):
        raise ConfigurationError(
            f"{len(same)} other training examples have exactly the same text ({_named(same)}); add --copies to erase them too, or the text would stay"
        )


def _named(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(map(repr, ids[:_NAMED])) + more


def _write(
    bundle: Path,
    work: Path,
    manifest: Manifest,
    *,
    kept: Rows,
    examples: ExampleTexts,
    milvus: MilvusServer | None,
) -> Manifest:
    shared = share_files(bundle, manifest, work)
    keep_rows(bundle, work, kept)
    left = itertools.chain.from_iterable(
        examples.read(part) for part in in_parts(kept.tolist(), ROWS_AT_ONCE)
    )
    searched = write_searched(work, left, driver_of(manifest), milvus)
    _keep_norms(bundle, work, kept)
    change = Change(erased=len(examples) - len(kept))
    made = finish(work, searched, bundle=bundle, parent=manifest, change=change)
    open_to_readers(work, MANIFEST, but=shared)
    return made


def _keep_norms(bundle: Path, work: Path, kept: Rows) -> None:
    """The full tier: its factors stay, the norms of rows that go do not."""
    for file in sorted((bundle / EKFAC).rglob("*")):
        target = work / file.relative_to(bundle)
        if file.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != ".safetensors":
            link_or_copy(file, target)
            continue
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise BundleCorrupt(f"{file}: the EK-FAC factors cannot be read: {error}") from error
        if NORMS in tensors:
            tensors[NORMS] = tensors[NORMS][torch.from_numpy(kept)].contiguous()
        save_file(tensors, target)
