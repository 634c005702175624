"""Adds training examples to a bundle by writing a new version: only the new rows go through the model.

The statistics that were fitted on the first bundle are kept, so the old rows score as before, and the new ones are scored as if those statistics were theirs too. That gets worse the more rows
come: from `deriving.REBUILD_SHARE` on a new build is due.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wherefrom.atomic import atomic_folder
from wherefrom.attribution.array_files import ArrayFile
from wherefrom.attribution.arrays import write_parts
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.deriving import (
    Change,
    check_known_files,
    finish,
    share_files,
    write_searched,
)
from wherefrom.attribution.bundles.examples import iter_examples, iter_texts
from wherefrom.attribution.bundles.features import FEATURES, PROJECTION, embed_texts, feature_writer
from wherefrom.attribution.bundles.indexes import POOLED_VECTORS, PROJECTED_VECTORS, IndexWishes, driver_of
from wherefrom.attribution.bundles.manifest import MANIFEST, Manifest, read_manifest
from wherefrom.attribution.bundles.reading import read_as
from wherefrom.attribution.bundles.rendering import OnNote, RenderedCorpus, ignore_note, render_corpus
from wherefrom.attribution.bundles.row_arrays import join_features
from wherefrom.attribution.bundles.shards import SHARD_ROWS, ShardFolder
from wherefrom.attribution.bundles.thinning import thin
from wherefrom.attribution.bundles.tokens import TokenRows, write_shown_ranges, write_token_rows
from wherefrom.attribution.bundles.work_folder import check_out, open_to_readers, passing_folder
from wherefrom.attribution.cores import CoreStore, write_sketches
from wherefrom.attribution.corpus import store_corpus
from wherefrom.attribution.ekfac.factors import EkfacFactors
from wherefrom.attribution.ekfac.path import point_folder
from wherefrom.attribution.ekfac.scores import EkfacScorer
from wherefrom.attribution.factors import FactorStore
from wherefrom.attribution.first_seen import FirstSeen
from wherefrom.attribution.gradient_sketch import FinalGradients
from wherefrom.attribution.kernel import kernel_norms
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.reading import reads_adapter
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.attribution.retrieval.encoder import ENCODED
from wherefrom.attribution.retrieval.projection import Projection
from wherefrom.errors import ConfigurationError
from wherefrom.index_settings import MilvusServer

#: Ids that an error names.
_NAMED = 3


@dataclass(frozen=True)
class _New:
    """The rows that come, as texts and as tokens; their arrays are written into the same folder."""

    corpus: RenderedCorpus
    rows: TokenRows

    @property
    def folder(self) -> Path:
        """Where they are while the new bundle is written."""
        return self.corpus.folder


def add_examples(  # noqa: PLR0913 - the choices of a build, each by keyword
    bundle: Path,
    corpus_path: Path,
    out: Path,
    *,
    folders: ModelFolders,
    skip_bad: bool = False,
    placement: Placement = CPU,
    milvus: MilvusServer | None = None,
    progress: Progress,
    on_note: OnNote = ignore_note,
) -> Manifest:
    """Write the bundle `out`: `bundle` with the rows of a further corpus behind its own.

    Args:
        bundle: an intact bundle; it is not changed.
        corpus_path: the new rows, in any form that a corpus has.
        out: folder of the new bundle.
        folders: the model and its adapter, those of the bundle.
        skip_bad: leave bad rows out and count them.
        placement: where the model computes.
        milvus: where Milvus is, for a bundle whose indexes are there.
        progress: called with each stage.
        on_note: hears what the person who adds should read.

    Raises:
        ConfigurationError: `out` exists, the bundle has an example of one of the new ids, or its index driver cannot work here.
        BundleCorrupt, BundleMismatch: the bundle or the model cannot be used.
        IndexUnavailable: the server of its indexes does not answer.
        PermanentError: a new row cannot be used; see `wherefrom.errors`.
        DiskFull: there is nothing at `out`.
    """
    check_out(out)
    IndexWishes(driver_of(read_manifest(bundle, verify=False)), milvus=milvus).check()
    progress("load model", 0, 1)
    opened = open_bundle(bundle, folders, exact_search=True, placement=placement)
    check_known_files(bundle, opened.manifest)
    progress("load model", 1, 1)
    with atomic_folder(out) as work:
        shared = share_files(bundle, opened.manifest, work)
        with passing_folder(work / "added") as added:
            new = _read(opened, corpus_path, added, skip_bad=skip_bad, on_note=on_note, progress=progress)
            _write_added(opened, new, progress=progress)
            join_features(bundle, added, work)
            _write_tokens(opened, new, work)
            examples = itertools.chain(iter_examples(bundle), iter_examples(added))
            searched = write_searched(work, examples, driver_of(opened.manifest), milvus)
            _join_norms(opened, new, work)
        change = Change(added=len(new.corpus), skipped=new.corpus.skipped, truncated=new.corpus.truncated)
        made = finish(work, searched, bundle=bundle, parent=opened.manifest, change=change)
        open_to_readers(work, MANIFEST, but=shared)
    return made


def _read(
    bundle: Bundle,
    corpus_path: Path,
    folder: Path,
    *,
    skip_bad: bool,
    on_note: OnNote,
    progress: Progress,
) -> _New:
    """Read and render the new rows into a folder."""
    manifest = bundle.manifest
    with passing_folder(folder / "read") as read:
        corpus = store_corpus(corpus_path, read, skip_bad=skip_bad, how=read_as(manifest.corpus.reading))
        for line in corpus.reading.lines():
            on_note(line)
        rendered = render_corpus(
            bundle.language.renderer,
            corpus,
            folder,
            max_tokens=manifest.parameters.max_tokens,
            skip_bad=skip_bad,
            on_note=on_note,
            progress=progress,
        )
    _check_new(bundle, corpus_path, folder)
    return _New(rendered, TokenRows(folder))


def _check_new(bundle: Bundle, corpus_path: Path, folder: Path) -> None:
    """Refuse rows with ids that the bundle has.

    Raises:
        ConfigurationError: names some.
    """
    count, named = 0, list[str]()
    with FirstSeen[int](folder / "ids.sqlite") as seen:
        for one in iter_examples(bundle.path):
            seen.first(one.example_id, one.row)
        for one in iter_examples(folder):
            if seen.first(one.example_id, one.row) is not None:
                count += 1
                named += [one.example_id] if len(named) < _NAMED else []
    if count:
        raise ConfigurationError(
            f"{corpus_path}: {count} rows have ids that {bundle.manifest.name} has already, such as {', '.join(map(repr, named))}; "
            "give new rows new ids, or erase the old ones first"
        )


def _write_added(bundle: Bundle, new: _New, *, progress: Progress) -> None:
    """Write the arrays of the new rows as a bundle of theirs would have them, with the old statistics."""
    added, rows = new.folder, new.rows
    shards, count = ShardFolder(added / "raw"), len(rows)
    for number in shards.missing(count):
        shards.compute(number, rows, bundle.reader)
        progress("read signals (rows)", min(count, (number + 1) * SHARD_ROWS), count)
    features, device = added / FEATURES, bundle.language.device
    whitener = bundle.whitener.to(device)
    with (
        feature_writer(added, bundle.manifest.parameters.form, examples=count) as writer,
        ArrayFile(features / POOLED_VECTORS, count) as pooled,
    ):
        for shard in shards.read(count):
            factors = shard.whitened(whitener)
            writer.append(factors, kernel_norms(factors).tolist())
            pooled.append(bundle.pooling.apply(shard.pooled).numpy())
        writer.finish()
    if isinstance(bundle.final, FinalGradients):
        bundle.final.write_more(features, shards.final(count), count=count)
    write_parts(features / PROJECTED_VECTORS, _projected(bundle, features, shards, count=count), count=count)
    thin(added, bundle.manifest.parameters, fitted=bundle.path)
    if bundle.encoded is not None:
        embed_texts(bundle.encoded.encoder, iter_texts(added), features / ENCODED)


def _projected(bundle: Bundle, features: Path, shards: ShardFolder, *, count: int) -> Iterator[Tensor]:
    """Projected vectors of the new rows, in parts; in the forms that read an adapter their sketches too."""
    file, device = bundle.path / PROJECTION, bundle.language.device
    if not reads_adapter(bundle.manifest.parameters.form):
        return Projection.load(file).to(device).apply_each(FactorStore(features))
    projection, whitener = CoreProjection.load(file).to(device), bundle.whitener.to(device)
    write_sketches(features, (one.whitened(whitener) for one in shards.read(count)), projection)
    return projection.apply_each(CoreStore(features))


def _write_tokens(bundle: Bundle, new: _New, work: Path) -> None:
    """Tokens of all rows: whether there are marks of explained tokens and shown ranges depends on all of them."""
    write_token_rows(work, itertools.chain(bundle.tokens, new.rows))
    shown = (tuple(bundle.shown.of(row)) for row in range(len(bundle.tokens)))
    write_shown_ranges(work, itertools.chain(shown, new.corpus.shown(new.rows, bundle.reader.reads)))


def _join_norms(bundle: Bundle, new: _New, work: Path) -> None:
    """The full tier: its factors stay, the norms of the new rows come behind those of the old ones."""
    if bundle.full is None:
        return
    for number, language in enumerate(bundle.points):
        factors = EkfacFactors.load(point_folder(bundle.path, number))
        if factors.norms is not None:
            norms = torch.cat([factors.norms, EkfacScorer(language, factors).norms(new.rows).cpu()])
            factors = factors.with_norms(norms, factors.facts.norms_damping)
        factors.save(point_folder(work, number))
