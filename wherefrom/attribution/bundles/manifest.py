"""The manifest of a bundle: what it was made from, with which parameters, and the SHA-256 of every file.

Needs neither torch nor numpy: every process of the service reads it. Hashes are checked before anything else of a bundle is opened. A bundle is named by its content, holds no
absolute path and never changes once it is written, but for the measured figures in its card (`card_file`).
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from wherefrom.attribution.bundles.file_format import BUNDLE_SCHEMA, refuse_format, refuse_newer
from wherefrom.attribution.bundles.hash_memory import BundleHashes, FileState, HashMemory
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import BundleCorrupt, UnknownBundle
from wherefrom.json_text import finite_numbers
from wherefrom.records import Frozen, sha256_of_json

MANIFEST = "manifest.json"
#: Stands beside the manifest where somebody signed it (`signing`); the manifest cannot list it.
SIGNATURE = "manifest.sig"
CARD = "card.json"
#: Libraries whose releases may change a number.
LIBRARIES = ("torch", "transformers", "safetensors", "peft", "hnswlib", "numpy", "bm25s")
#: Files that are hashed at the same time; more only wait for the disk.
_MOST_THREADS = 8


class Grown(Frozen):
    """A part of the manifest with fields that bundles of this schema did not always have.

    Those in `LATER` are left out where they are None, so that the bundles from before them keep their bytes and their names.
    """

    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        dumped: dict[str, Any] = handler(self)
        return {name: value for name, value in dumped.items() if name not in self.LATER or value is not None}


class ModelEntry(Frozen):
    """The model whose training the bundle explains."""

    #: The revision name that producers send in `model`.
    name: str
    #: Names of the folders that held model and adapter when the bundle was built.
    base_folder: str
    adapter_folder: str | None
    weights_sha256: str
    adapter_sha256: str | None
    tokenizer_sha256: str
    #: The folder that the fine-tune began with, where the bundle reads the half-way model and there is no adapter.
    start_folder: str | None = None
    start_sha256: str | None = None
    weight_bytes: int
    parameters: int
    layers: int
    hidden_size: int


class ReadingEntry(Frozen):
    """How the corpus was read."""

    #: Which trained assistant turns are explained.
    turns: Literal["all", "last"]
    #: The format and the split that were asked for, where they were.
    format: str | None
    split: str | None
    #: Rows by the format that they were read as.
    formats: dict[str, int]
    explained_turns: int
    #: Assistant turns that are not explained, by reason.
    left_out: dict[str, int]
    #: Rows of which no turn was trained on.
    untrained_rows: int


class CorpusEntry(Grown):
    """The training corpus."""

    LATER: ClassVar[frozenset[str]] = frozenset({"not_learned", "reading"})

    name: str
    sha256: str
    examples: int
    tokens: int
    completion_tokens: int
    skipped: int
    truncated: int
    #: Why the model counts as not trained on it (see `attribution.learning`); no citation is supported then.
    not_learned: str | None = None
    #: None in bundles of earlier releases.
    reading: ReadingEntry | None = None


class Parameters(Grown):
    """Everything that decides the numbers of a bundle besides model and corpus."""

    LATER: ClassVar[frozenset[str]] = frozenset(
        {
            "rendering",
            "similarity",
            "instead",
            "first_block",
            "weight_final",
            "final_prompt_tokens",
            "features",
        }
    )

    form: Literal["forward", "activation", "adapter", "adapter-forward"]
    #: Why this is not the form that was asked for; None where it is.
    instead: str | None = None
    #: Hidden states that are read, 0 = embedding; none where the form reads the directions of an adapter.
    layers: tuple[int, ...]
    #: First block whose adapted layers are read, 0 = the lowest; None for all of them, and for forms that do not read an adapter.
    first_block: int | None = None
    similarity_layer: int
    #: Which states similarity compares (`retrieval.pooling`); None for the hidden state of `similarity_layer`.
    similarity: Literal["adapter"] | None = None
    #: Whether signals are also read half-way between the first and the final weights (see `models.trajectory`).
    midpoint: bool = False
    #: Whether EK-FAC factors are stored, for audits that are marked important.
    full_tier: bool = False
    damping: float
    max_tokens: int
    candidates: int
    weight_influence: float
    weight_bm25: float
    weight_similarity: float
    #: Folder name of the sentence encoder that the bundle carries, where it has one.
    encoder: str | None = None
    weight_encoder: float
    weight_length: float
    #: Of the gradients at the final weights (`models.final_gradients`); None where they are not read.
    weight_final: float | None = None
    #: Tokens of the prompt, right before the completion, whose gradients count among these; None for all of them, as in bundles of before.
    final_prompt_tokens: int | None = None
    #: What is kept of each training example to score it with (`thinning`); None for the exact features, as in bundles of before.
    features: Literal["compact", "none"] | None = None
    #: How texts are rendered, where the model's folder does not say it all.
    rendering: RenderingRule | None = None

    def fitting(self, examples: int) -> "Parameters":
        """The same with no more candidates than training examples."""
        return self.model_copy(update={"candidates": min(self.candidates, examples)})


class ProjectionEntry(Frozen):
    """Shape and size of the learned projection."""

    groups: int
    rank_a: int
    rank_b: int
    dimensions: int
    bytes: int
    #: `bytes` over the bytes of the model's weight files.
    share_of_model: float


class ComputeEntry(Frozen):
    """What signals were read on. Bundles are served on any device and in any numbers."""

    #: `cpu` or `cuda`.
    device: str
    #: What the GPU calls itself.
    name: str | None = None
    #: Numbers of the pass through the model; everything behind it is float32 or better.
    dtype: Literal["float32", "bfloat16"]


class IndexEntry(Frozen):
    """The vector indexes."""

    #: What made and searches them (`retrieval.index_drivers`).
    driver: Literal["hnsw", "faiss", "milvus"]
    #: Share of the exact 100 nearest that each index finds, on sampled rows of the corpus.
    recall_at_100: dict[str, float]


class FileEntry(Frozen):
    """One file of the bundle."""

    sha256: str
    bytes: int = Field(ge=0)


class DerivedEntry(Frozen):
    """What a bundle was made of, where it was not built from its corpus (`deriving`)."""

    #: Name of the bundle whose rows were changed.
    parent: str
    #: Rows of the corpus that the statistics were fitted on.
    statistics_rows: int = Field(ge=1)
    #: Rows that went and came since, all derived bundles between counted.
    erased: int = Field(ge=0)
    added: int = Field(ge=0)
    #: Digests of the corpora that the parts which were taken over may stand on: those of the bundles before, and so on.
    fitted_on: tuple[str, ...] = ()

    @property
    def changed_share(self) -> float:
        """Rows that went or came over the rows of the statistics."""
        return (self.erased + self.added) / self.statistics_rows


class Manifest(Grown):
    """The content of `manifest.json`."""

    LATER: ClassVar[frozenset[str]] = frozenset({"format", "built_on", "also_read_on", "derived", "index"})

    bundle_schema: Literal[3] = Field(default=BUNDLE_SCHEMA, alias="schema")
    #: Least format of files that a release must read to open it (`file_format`); None: the first.
    format: int | None = Field(default=None, ge=2)
    name: str
    created_at: datetime
    model: ModelEntry
    corpus: CorpusEntry
    parameters: Parameters
    projection: ProjectionEntry
    versions: dict[str, str]
    #: What read the signals of the corpus, or most of its parts; None in bundles of earlier releases, which were built on the CPU in float32.
    built_on: ComputeEntry | None = None
    #: What read the other parts, where several machines did and not all compute alike.
    also_read_on: tuple[ComputeEntry, ...] | None = None
    #: None where it was built from its corpus.
    derived: DerivedEntry | None = None
    #: None in bundles of earlier releases, whose driver is `hnsw`.
    index: IndexEntry | None = None
    files: dict[str, FileEntry]
    #: SHA-256 over all of the above.
    seal: str = ""

    @property
    def fitted_on(self) -> frozenset[str]:
        """Digests of the corpora that calibration and figures of this bundle may stand on: its own, and that of a bundle whose fitted parts it took over."""
        return frozenset({self.corpus.sha256, *(() if self.derived is None else self.derived.fitted_on)})

    def content_name(self) -> str:
        """The name that this content must have; the date, the libraries, the device, the card (it holds seconds) and what was measured of the indexes do not count."""
        content = self.model_dump(
            mode="json",
            by_alias=True,
            exclude={"name", "created_at", "versions", "built_on", "also_read_on", "index", "seal"},
        )
        content["files"].pop(CARD, None)
        return f"b-{sha256_of_json(content)[:16]}"

    def seal_of_content(self) -> str:
        """Hash of everything that the manifest says, the seal itself left out."""
        return sha256_of_json(self.model_dump(mode="json", by_alias=True, exclude={"seal"}))

    def sealed(self) -> "Manifest":
        """The manifest under its name and seal."""
        named = self.model_copy(update={"name": self.content_name()})
        return named.model_copy(update={"seal": named.seal_of_content()})

    def to_bytes(self) -> bytes:
        """The one way in which it is written."""
        return (self.model_dump_json(by_alias=True, indent=2) + "\n").encode("utf-8")


def read_manifest(bundle: Path, *, verify: bool = True, hashes: HashMemory | None = None) -> Manifest:
    """Read a bundle's manifest and check every file against it.

    Args:
        bundle: its folder.
        verify: whether the files are checked.
        hashes: what this machine remembers of files that it hashed before; None hashes all of them.

    Raises:
        UnknownBundle: the folder does not exist or holds no manifest.
        BundleTooNew: a newer release made it, and this one cannot open it.
        BundleCorrupt: the manifest is unreadable, or a file is missing, added or changed.
    """
    file = bundle / MANIFEST
    if not file.is_file():
        raise UnknownBundle(
            f"{bundle}: not a bundle ({MANIFEST} is missing); build one with `wherefrom build`"
        )
    try:
        manifest = Manifest.model_validate_json(file.read_bytes())
    except ValidationError as error:
        refuse_newer(file, error)
        raise BundleCorrupt(
            f"{file}: not a manifest of schema {BUNDLE_SCHEMA} ({error.error_count()} errors); rebuild the bundle of an older release"
        ) from error
    if manifest.name != manifest.content_name():
        raise BundleCorrupt(
            f"{file}: the name {manifest.name} does not fit the content ({manifest.content_name()})"
        )
    if manifest.seal != manifest.seal_of_content() or manifest.to_bytes() != file.read_bytes():
        raise BundleCorrupt(f"{file}: the manifest was changed after it was written")
    refuse_format(file, manifest.format)
    if verify:
        _verify_files(bundle, manifest, hashes)
    return manifest


def _verify_files(bundle: Path, manifest: Manifest, hashes: HashMemory | None) -> None:
    present = {str(one.relative_to(bundle)) for one in bundle.rglob("*") if one.is_file()}
    present -= {MANIFEST, SIGNATURE}
    for name in sorted(present ^ manifest.files.keys()):
        raise BundleCorrupt(
            f"{bundle}: file {name} is {'not in the manifest' if name in present else 'missing'}"
        )
    hashed = _hash_all(bundle, manifest, None if hashes is None else hashes.of(bundle))
    for name, entry in manifest.files.items():
        if (found := hashed[name]) != entry:
            advice = (
                "; if `wherefrom evaluate` was interrupted while it wrote the card, run it again"
                if name == CARD
                else ""
            )
            raise BundleCorrupt(
                f"{bundle}: file {name} has changed (SHA-256 {found.sha256[:12]}..., the manifest says {entry.sha256[:12]}...){advice}"
            )


def _hash_all(bundle: Path, manifest: Manifest, known: BundleHashes | None) -> dict[str, FileEntry]:
    """Hash and size of every file that the manifest names, several at once, the largest first."""
    names = sorted(manifest.files, key=lambda name: manifest.files[name].bytes, reverse=True)
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1), "hash") as pool:
        found = list(pool.map(lambda name: _hash_one(bundle, name, known), names))
    if known is not None:
        known.save()
    return dict(zip(names, found, strict=True))


def _hash_one(bundle: Path, name: str, known: BundleHashes | None) -> FileEntry:
    file = bundle / name
    if known is None:
        return hash_file(file)
    try:
        before = file.stat()
        if (remembered := known.recall(name, before)) is not None:
            return FileEntry(sha256=remembered, bytes=before.st_size)
        found, after = hash_file(file), file.stat()
    except OSError as error:
        raise BundleCorrupt(f"{file} cannot be read: {error.strerror or error}") from error
    if FileState.of(before) == FileState.of(after):
        known.remember(name, before, found.sha256)
    return found


def hash_file(file: Path) -> FileEntry:
    """Hash and size of one file.

    Raises:
        BundleCorrupt: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            return FileEntry(
                sha256=hashlib.file_digest(content, "sha256").hexdigest(), bytes=file.stat().st_size
            )
    except OSError as error:
        raise BundleCorrupt(f"{file} cannot be read: {error.strerror or error}") from error


def hash_folder(folder: Path) -> dict[str, FileEntry]:
    """Hash and size of every file below a folder, by relative name."""
    return {
        str(one.relative_to(folder)): hash_file(one)
        for one in sorted(folder.rglob("*"))
        if one.is_file() and one.name not in {MANIFEST, SIGNATURE}
    }


def read_card(bundle: Path) -> dict[str, Any]:
    """The measured cost and quality of a bundle; a number that JSON has no form for, which earlier releases wrote, is None."""
    card: dict[str, Any] = finite_numbers(json.loads((bundle / CARD).read_text(encoding="utf-8")))
    return card
