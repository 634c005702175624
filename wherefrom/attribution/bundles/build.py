"""Builds a bundle: one pass over the model, then whitening, projection and indexes over its factors.

Work stands in `OUT.building` until everything is written and hashed; then the folder is renamed to OUT. A build that was stopped goes on where it was; one that was started with other inputs is refused, not mixed.
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from wherefrom.atomic import disk_errors, move_folder
from wherefrom.attribution.array_files import ArrayFile
from wherefrom.attribution.bundles.adapter_files import write_adapter_files
from wherefrom.attribution.bundles.card import features_on_card, learning_on_card, new_card, reading_coverage
from wherefrom.attribution.bundles.corpus_pass import PassJob, ReadsCorpus, read_here, seconds_to_read
from wherefrom.attribution.bundles.entries import compute_entry, format_of, library_versions, model_entry
from wherefrom.attribution.bundles.features import (
    FEATURES,
    feature_writer,
    write_encoded,
    write_no_calibration,
    write_pooled,
    write_projection,
    write_words,
)
from wherefrom.attribution.bundles.indexes import chosen_driver, write_indexes
from wherefrom.attribution.bundles.learned import check_learned
from wherefrom.attribution.bundles.manifest import (
    CARD,
    MANIFEST,
    ComputeEntry,
    CorpusEntry,
    IndexEntry,
    Manifest,
    Parameters,
    ProjectionEntry,
    hash_folder,
)
from wherefrom.attribution.bundles.options import BuildOptions, parameters_of, with_readable_form
from wherefrom.attribution.bundles.plan import plan_of
from wherefrom.attribution.bundles.readers import reader_of
from wherefrom.attribution.bundles.reading import corpus_entry, reading_entry
from wherefrom.attribution.bundles.rendering import (
    OnNote,
    RenderedCorpus,
    ignore_note,
    joined_note,
    render_corpus,
)
from wherefrom.attribution.bundles.shards import ShardFolder
from wherefrom.attribution.bundles.thinning import thin
from wherefrom.attribution.bundles.tokens import TokenRows, write_shown_ranges
from wherefrom.attribution.bundles.work_folder import (
    check_out,
    claim_folder,
    nothing_left_of,
    open_to_readers,
    passing_folder,
    sole_use,
)
from wherefrom.attribution.corpus import Corpus, store_corpus
from wherefrom.attribution.ekfac.gradients import block_linears
from wherefrom.attribution.ekfac.path import build_path
from wherefrom.attribution.gradient_sketch import FinalGradients
from wherefrom.attribution.kernel import kernel_norms
from wherefrom.attribution.learning import Learning
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.files import ModelFolders, fingerprint
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import CPU
from wherefrom.attribution.models.reading import ranks_of
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import ReadsSignals, load_halfway
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.retrieval.encoder import SentenceEncoder
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.json_text import finite_numbers
from wherefrom.records import sha256_of_json, utc_now

#: Files of an unfinished build that the next one goes on from.
_FINISHED = "raw/*.npz"


def build_bundle(
    *,
    folders: ModelFolders,
    corpus_path: Path,
    out: Path,
    options: BuildOptions,
    progress: Progress,
    on_note: OnNote = ignore_note,
    read_corpus_by: ReadsCorpus = read_here,
) -> Manifest:
    """Build the bundle `out` for a model, its adapter and its training corpus.

    `folders.start` is what a full fine-tune began with, for the option `midpoint`; `on_note` hears what the person who builds should read; `read_corpus_by` runs the corpus
    through the model, in this process or elsewhere.

    Raises:
        ConfigurationError: `out` exists, an unfinished build of other inputs stands in its place, or another process builds there.
        DiskFull: what is finished stays and the same command goes on behind it.
        PermanentError: the corpus or the model cannot be used; see `wherefrom.errors`.
    """
    check_out(out)
    options.index.check()
    work = out.with_name(out.name + ".building")
    with (
        disk_errors(out, doing="building"),
        sole_use(work),
        nothing_left_of(work, unless=_FINISHED),
        passing_folder(work / "read") as read,
        passing_folder(work / "rendered") as folder,
    ):
        corpus = _read(corpus_path, read, options, on_note)
        progress("load model", 0, 1)
        points, parameters = _load(folders, corpus, options, on_note)
        progress("load model", 1, 1)
        rendered = render_corpus(
            points[0].renderer,
            corpus,
            folder,
            max_tokens=parameters.max_tokens,
            skip_bad=options.skip_bad,
            on_note=on_note,
            progress=progress,
        )
        shutil.rmtree(read)
        rows = TokenRows(folder)
        build = _Build(
            points,
            rendered,
            out,
            folders=folders,
            parameters=parameters.fitting(len(rows)),
            learning=check_learned(
                points[0], rows, folders, placement=options.placement, progress=progress, on_note=on_note
            )
            if options.check_learning
            else None,
            options=options,
            progress=progress,
        )
        return build.run(rows, on_note, read_corpus_by)


def _read(corpus_path: Path, folder: Path, options: BuildOptions, on_note: OnNote) -> Corpus:
    """The corpus, with its rows in a folder."""
    corpus = store_corpus(corpus_path, folder, skip_bad=options.skip_bad, how=options.read)
    for line in corpus.reading.lines():
        on_note(line)
    return corpus


def _load(
    folders: ModelFolders, corpus: Corpus, options: BuildOptions, on_note: OnNote
) -> tuple[list[LanguageModel], Parameters]:
    """The points of the fine-tune that are read, the audited model first, and how they are read."""
    language = load_model(folders.model, folders.adapter, placement=options.placement)
    options, why = with_readable_form(language, folders.adapter, options)
    if why is not None:
        on_note(f"NOTE: {why}")
    parameters = parameters_of(language, corpus, options, adapter_dir=folders.adapter, instead=why)
    if parameters.rendering is not None:
        language = language.with_rule(parameters.rendering)
    if not language.renderer.has_template:
        on_note(joined_note(parameters.rendering))
    return [language, *([load_halfway(language, folders)] if options.midpoint else [])], parameters


class _Build:
    """The state of one build."""

    def __init__(
        self,
        points: Sequence[LanguageModel],
        corpus: RenderedCorpus,
        out: Path,
        *,
        parameters: Parameters,
        folders: ModelFolders,
        learning: Learning | None,
        options: BuildOptions,
        progress: Progress,
    ) -> None:
        language = points[0]
        self._folders = folders
        self._language = language
        self._encoder = (
            None
            if options.encoder is None
            else (options.encoder, SentenceEncoder.load(options.encoder, language.device))
        )
        self._points = points
        self._corpus = corpus
        self._out = out
        self._work = out.with_name(out.name + ".building")
        self._bundle = self._work / "bundle"
        self._progress = progress
        self._seconds: dict[str, float] = {}
        self._read_on: tuple[ComputeEntry, ...] = ()
        self._parameters = parameters
        self._learning = learning
        self._placement = options.placement
        self._index = options.index
        self._model_name = options.model_name or "+".join(
            filter(None, [language.base_folder, language.adapter_folder])
        )

    def run(self, rows: TokenRows, on_note: OnNote, read_corpus_by: ReadsCorpus) -> Manifest:
        """All stages in order, over the corpus as tokens."""
        self._claim_folder()
        if self._parameters.full_tier:
            block_linears(self._language)  # refused before the pass, not after it
        shards = ShardFolder(self._work / "raw")
        with self._timed("model_pass"):
            job = self._pass_job(rows, shards, on_note)
            self._read_on = tuple(read_corpus_by(job))
        reader = job.reader
        shutil.rmtree(self._bundle, ignore_errors=True)
        self._bundle.mkdir()
        with self._timed("whitening"):
            loss = self._write_factors(shards, shards.moments(), len(rows), ranks=ranks_of(reader))
        with self._timed("projection"):
            projection = self._write_projection()
        with self._timed("lexical"):
            self._write_texts(rows, reader)
        if isinstance(reader, AdapterReader):
            with self._timed("adapter"):
                write_adapter_files(self._bundle, reader, lambda: shards.read(len(rows)))
        with self._timed("index"):
            index = self._write_indexes(on_note)
        thin(self._bundle, self._parameters)
        if self._parameters.full_tier:
            with self._timed("full_tier"):
                build_path(self._points, rows, bundle=self._bundle, progress=self._progress)
        write_no_calibration(self._bundle)
        corpus = corpus_entry(self._corpus, self._learning)
        self._write_card(corpus, projection, index, mean_loss=loss, job=job)
        manifest = self._write_manifest(corpus, projection, index)
        open_to_readers(self._bundle, MANIFEST)
        move_folder(self._bundle, self._out)
        shutil.rmtree(self._work)
        self._progress("done", 1, 1)
        return manifest

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._seconds[stage] = time.monotonic() - started

    def _claim_folder(self) -> None:
        """Take the work folder, or go on in it if it belongs to the same inputs."""
        marks = asdict(self._language.fingerprint) | {
            "corpus": self._corpus.written.sha256,
            "parameters": self._parameters.model_dump(mode="json"),
            "start": self._start_sha256(),
            "encoder": None if self._encoder is None else fingerprint(self._encoder[0]).weights_sha256,
        }
        if self._placement.dtype is not CPU.dtype:  # so that a build of before there were dtypes goes on
            marks["dtype"] = self._placement.dtype_name
        claim_folder(self._work, sha256_of_json(marks), finished=_FINISHED)

    def _start_sha256(self) -> str | None:
        """Hash of the first weights, where the half-way model needs another folder than the audited model's own."""
        if len(self._points) == 1 or self._language.adapter_folder is not None:
            return None
        return self._points[1].fingerprint.weights_sha256

    def _pass_job(self, rows: TokenRows, shards: ShardFolder, on_note: OnNote) -> PassJob:
        """What is to be read, by what."""
        plan = plan_of(
            self._points,
            self._folders,
            parameters=self._parameters,
            corpus_sha256=self._corpus.written.sha256,
            start_sha256=self._start_sha256(),
            dtype=self._placement.dtype,
        )
        reader = reader_of(self._parameters, self._points, adapter_dir=self._folders.adapter)
        here = compute_entry(self._placement)
        return PassJob(rows, plan, reader, shards, progress=self._progress, on_note=on_note, here=here)

    def _write_factors(
        self, shards: ShardFolder, moments: SecondMoments, count: int, *, ranks: Sequence[int] | None
    ) -> float:
        """Whiten, quantise and store the factors, and what similarity compares; returns the corpus' mean loss."""
        whitener = Whitener.fit(moments, self._parameters.damping, ranks=ranks)
        save_file({"a": whitener.a, "b": whitener.b}, self._bundle / "whitening.safetensors")
        whitener = whitener.to(self._language.device)
        states, losses, done = self._work / "states.npy", [], 0
        with (
            feature_writer(self._bundle, self._parameters.form, examples=count) as writer,
            ArrayFile(states, count) as pooled,
        ):
            for shard in shards.read(count):
                factors = shard.whitened(whitener)
                writer.append(factors, kernel_norms(factors).tolist())
                pooled.append(shard.pooled.numpy())
                losses.append(shard.loss)
                done += len(shard.lengths)
                self._progress("whiten", done, count)
            writer.finish()
        if self._parameters.weight_final is not None:
            FinalGradients.write(self._bundle / FEATURES, lambda: shards.final(count), count=count)
        write_pooled(self._bundle / FEATURES, self._parameters.similarity or "hidden", states)
        states.unlink()
        return float(torch.cat(losses).mean())

    def _write_projection(self) -> ProjectionEntry:
        """Fit and store the projection and the projected corpus."""
        self._progress("fit projection", 0, 1)
        entry = write_projection(
            self._bundle,
            self._parameters.form,
            budget_bytes=self._language.fingerprint.weight_bytes,
            device=self._language.device,
        )
        self._progress("fit projection", 1, 1)
        return entry

    def _write_indexes(self, on_note: OnNote) -> IndexEntry:
        """The indexes over everything that is searched by vectors."""
        self._progress("index", 0, 1)
        driver, why = chosen_driver(self._bundle, self._index)
        if why is not None:
            on_note(why)
        entry = write_indexes(self._bundle, self._corpus.written.originals, driver, milvus=self._index.milvus)
        self._progress("index", 1, 1)
        return entry

    def _write_texts(self, rows: Sequence[TokenRow], reader: ReadsSignals) -> None:
        """Everything that is made of the corpus' words: texts, tokens, BM25, near-duplicate groups."""
        self._corpus.move(self._bundle)
        write_shown_ranges(self._bundle, self._corpus.shown(rows, reader.reads))
        self._progress("index words", 0, 1)
        write_words(self._bundle)
        self._progress("index words", 1, 1)
        if self._encoder is not None:
            folder, encoder = self._encoder
            write_encoded(self._bundle, folder, encoder)
            self._progress("encode texts", len(rows), len(rows))

    def _write_card(
        self,
        corpus: CorpusEntry,
        projection: ProjectionEntry,
        index: IndexEntry,
        *,
        mean_loss: float,
        job: PassJob,
    ) -> None:
        card = new_card(
            self._language,
            self._parameters,
            corpus,
            projection=projection,
            mean_loss=mean_loss,
            seconds=self._seconds,
            bundle_bytes=sum(one.stat().st_size for one in self._bundle.rglob("*") if one.is_file()),
            split_pass=job.reader.split_pass,
        )
        bare = self._parameters.features == "none"
        reading_s = seconds_to_read(self._parameters.candidates, job) if bare else None
        card["cost"] |= features_on_card(self._parameters, reading_s)
        card |= {"learning": learning_on_card(self._learning), "index": index.model_dump(mode="json")}
        card["coverage"] |= reading_coverage(reading_entry(self._corpus.reading))
        (self._bundle / CARD).write_text(json.dumps(finite_numbers(card), indent=2) + "\n", encoding="utf-8")

    def _write_manifest(
        self, corpus: CorpusEntry, projection: ProjectionEntry, index: IndexEntry
    ) -> Manifest:
        draft = Manifest(
            name="b-unnamed",
            format=format_of(self._bundle),
            created_at=utc_now(),
            model=model_entry(self._points, self._model_name, self._start_sha256()),
            corpus=corpus,
            parameters=self._parameters,
            projection=projection,
            versions=library_versions(DriverName(index.driver)),
            built_on=self._read_on[0],
            also_read_on=self._read_on[1:] or None,
            index=index,
            files=hash_folder(self._bundle),
        )
        manifest = draft.sealed()
        (self._bundle / MANIFEST).write_bytes(manifest.to_bytes())
        return manifest
