"""Opens a bundle for attribution: hashes first, then the model it belongs to, then its parts, memory-mapped."""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from wherefrom.attribution.array_files import mapped
from wherefrom.attribution.bundles.entries import differences
from wherefrom.attribution.bundles.examples import ExampleTexts
from wherefrom.attribution.bundles.from_text import Rereader, RereadFinalGradients, TextStore
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.indexes import (
    ENCODED_TEXTS,
    POOLED_VECTORS,
    PROJECTED,
    PROJECTED_VECTORS,
    SIMILARITY,
    IndexOpener,
    driver_of,
)
from wherefrom.attribution.bundles.manifest import Manifest, Parameters, read_manifest
from wherefrom.attribution.bundles.readers import reader_of
from wherefrom.attribution.bundles.tokens import ShownRanges, TokenRows
from wherefrom.attribution.cores import CoreStore
from wherefrom.attribution.ekfac.path import EkfacPath, load_path
from wherefrom.attribution.explanation.modules import USUAL_SHARES, ModuleEvidence, ModuleMap, UsualShares
from wherefrom.attribution.fusion import FusionWeights
from wherefrom.attribution.gradient_sketch import FinalGradients, ScoresFinal, load_roots
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.adjoint import ADJOINT, Adjoint
from wherefrom.attribution.models.files import ModelFingerprint, ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.trajectory import ReadsSignals, load_halfway
from wherefrom.attribution.retrieval.candidates import Indexes
from wherefrom.attribution.retrieval.encoder import (
    ENCODED,
    ENCODER,
    EncodedCorpus,
    SentenceEncoder,
)
from wherefrom.attribution.retrieval.index import Rows, VectorIndex, Vectors
from wherefrom.attribution.retrieval.index_drivers import DriverName
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.attribution.retrieval.pooling import Pooling
from wherefrom.attribution.row_curvature import RowCurvature
from wherefrom.attribution.stored import ExampleStore, Projects, open_features, open_projection
from wherefrom.attribution.whitening import Whitener
from wherefrom.errors import BundleCorrupt, BundleMismatch
from wherefrom.index_settings import MilvusServer


@dataclass(frozen=True)
class Bundle:
    """An opened bundle with its model."""

    path: Path
    manifest: Manifest
    language: LanguageModel
    #: The points of the fine-tune whose signals are read, the audited model first.
    points: tuple[LanguageModel, ...]
    #: Reads the signals of the bundle's form off these points.
    reader: ReadsSignals
    whitener: Whitener
    store: ExampleStore
    #: Divides a citation's influence over the parts of the model, where the form can.
    modules: ModuleEvidence | None
    projection: Projects
    #: `[N, P]` projected vectors of the corpus, memory-mapped.
    vectors: Vectors
    #: What rows share is taken out of the influence by it, in the forms that read an adapter.
    curvature: RowCurvature | None
    #: Gradients of the adapter's matrices at the final weights, in the form `adapter`.
    final: ScoresFinal | None
    #: `[N, D]` what similarity compares (`retrieval.pooling`), memory-mapped.
    pooled: Vectors
    pooling: Pooling
    index: VectorIndex
    similarity: VectorIndex
    lexical: LexicalIndex
    #: The sentence encoder, where the bundle carries one.
    encoded: EncodedCorpus | None
    texts: ExampleTexts
    tokens: TokenRows
    #: Characters of tokens that the texts alone do not tell.
    shown: ShownRanges
    #: The full tier, where the bundle holds it.
    full: EkfacPath | None

    @property
    def searched_by(self) -> str:
        """Name of the index driver for people."""
        return {DriverName.HNSW: "HNSW", DriverName.FAISS: "faiss", DriverName.MILVUS: "Milvus"}[
            driver_of(self.manifest)
        ]

    @property
    def indexes(self) -> Indexes:
        """What the first stage searches."""
        encoded = None if self.encoded is None else self.encoded.index
        return Indexes(self.index, self.similarity, self.lexical, encoded)

    def net_magnitude(self, cosines: Vectors, projected: Vectors, rows: Rows | slice) -> Vectors:
        """Kernel values `[K]` of rows with a query, over the query's norm and without what the rows of the corpus share, where the bundle knows that.

        Args:
            cosines: influence of the rows `[K]`.
            projected: the query's projected vector `[P]`.
            rows: which rows.
        """
        if self.curvature is not None:
            cosines = self.curvature.net(cosines, projected, self.vectors[rows])
        net: Vectors = cosines * self.store.norms[rows]
        return net

    @property
    def weights(self) -> FusionWeights:
        """Weights of the order shown."""
        parameters = self.manifest.parameters
        return FusionWeights(
            influence=parameters.weight_influence,
            bm25=parameters.weight_bm25,
            similarity=parameters.weight_similarity,
            encoder=parameters.weight_encoder,
            length=parameters.weight_length,
            final=parameters.weight_final or 0.0,
        )


def open_bundle(
    path: Path,
    folders: ModelFolders,
    *,
    exact_search: bool = False,
    marks: Future[ModelFingerprint] | None = None,
    placement: Placement = CPU,
    milvus: MilvusServer | None = None,
    hashes: HashMemory | None = None,
) -> Bundle:
    """Check and open a bundle together with its model.

    Args:
        path: the bundle's folder.
        folders: the model and its adapter, which must have the hashes that the manifest states; the folder that the fine-tune began with, where the bundle
            reads the half-way model and has no adapter.
        exact_search: search exhaustively instead of by the bundle's indexes (tests and evaluation).
        marks: the hashes of model and adapter, where they are being computed already (`models.files.hash_beside`).
        placement: where the model computes; any, whatever the bundle was built on.
        milvus: where Milvus is, for a bundle whose indexes are there.
        hashes: what this machine remembers of files that it hashed before; None hashes all of them.

    Raises:
        OutOfMemory: model, projection or factors do not fit there.
        UnknownBundle, BundleCorrupt: nothing usable at `path`.
        BundleMismatch: model, adapter or tokenizer are not those of the bundle.
        ConfigurationError, IndexUnavailable: what the bundle's index driver needs is not installed or not set; its server does not answer.
    """
    manifest = read_manifest(path, hashes=hashes)
    indexes = IndexOpener(path, manifest, milvus=milvus, exact=exact_search)
    language = _language(manifest, folders, marks=marks, placement=placement)
    points = _points(manifest, language, folders)
    features, parameters = path / "features", manifest.parameters
    whitener = _whitener(path).to(language.device)
    store, projection = _features(path, manifest, points, adapter_dir=folders.adapter, whitener=whitener)
    reader = _reader(points, path, parameters=parameters, adapter_dir=folders.adapter)
    return Bundle(
        path=path,
        manifest=manifest,
        language=language,
        points=points,
        reader=reader,
        whitener=whitener,
        store=store,
        modules=_modules(reader, store, path),
        projection=projection,
        vectors=mapped(features / PROJECTED_VECTORS),
        curvature=RowCurvature.load(features),
        final=_final(features, parameters, language.device, store),
        pooled=mapped(features / POOLED_VECTORS),
        pooling=Pooling.load(features).to(language.device),
        index=indexes.open(PROJECTED),
        similarity=indexes.open(SIMILARITY),
        lexical=LexicalIndex.load(path / "lexical"),
        encoded=_encoded(path, parameters, language.device, indexes),
        texts=ExampleTexts(path),
        tokens=TokenRows(path),
        shown=ShownRanges(path),
        full=load_path(points, path),
    )


def _features(
    path: Path,
    manifest: Manifest,
    points: tuple[LanguageModel, ...],
    *,
    adapter_dir: Path | None,
    whitener: Whitener,
) -> tuple[ExampleStore, Projects]:
    """The features of the corpus, stored or read again, and their projection."""
    parameters, device = manifest.parameters, points[0].device
    store: ExampleStore
    if parameters.features == "none":  # read as the build did, whatever reads outputs
        reader = reader_of(parameters, points, adapter_dir=adapter_dir)
        store = TextStore(path / "features", Rereader(reader, whitener, TokenRows(path)))
        projection: Projects = open_projection(path, parameters.form, device)
    else:
        rank = None if parameters.features is None else manifest.projection.rank_a
        store, projection = open_features(path, parameters.form, device, rank=rank)
    if len(store) != manifest.corpus.examples:
        raise BundleCorrupt(f"{path}: {len(store)} factors for {manifest.corpus.examples} training examples")
    return store, projection


def _final(
    features: Path, parameters: Parameters, device: torch.device, store: ExampleStore
) -> ScoresFinal | None:
    if parameters.weight_final is None:
        return None
    if isinstance(store, TextStore):
        return RereadFinalGradients(load_roots(features, device), store.rereader)
    return FinalGradients.load(features, device)


def _language(
    manifest: Manifest, folders: ModelFolders, *, marks: Future[ModelFingerprint] | None, placement: Placement
) -> LanguageModel:
    """The audited model, which must be the one of the manifest."""
    rule = manifest.parameters.rendering
    language = load_model(folders.model, folders.adapter, marks=marks, rule=rule, placement=placement)
    check_model(manifest, language)
    return language


def _whitener(path: Path) -> Whitener:
    try:
        whitening = load_file(path / "whitening.safetensors")
        return Whitener(whitening["a"], whitening["b"])
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleCorrupt(f"{path}: whitening.safetensors cannot be read: {error}") from error


def _reader(
    points: tuple[LanguageModel, ...], path: Path, *, parameters: Parameters, adapter_dir: Path | None
) -> ReadsSignals:
    forward_only = parameters.form == "adapter-forward"
    adjoint = Adjoint.load(path / ADJOINT).to(points[0].device) if forward_only else None
    return reader_of(parameters, points, adapter_dir=adapter_dir, adjoint=adjoint)


def _points(
    manifest: Manifest,
    language: LanguageModel,
    folders: ModelFolders,
) -> tuple[LanguageModel, ...]:
    if not manifest.parameters.midpoint:
        return (language,)
    halfway = load_halfway(language, folders)
    wanted, given = manifest.model.start_sha256, halfway.fingerprint.weights_sha256
    if folders.adapter is None and wanted != given:
        raise BundleMismatch(
            f"bundle {manifest.name} reads the model half-way from other first weights "
            f"(SHA-256 {(wanted or 'none')[:12]}, given {given[:12]}); give the folder of the weights before the fine-tune"
        )
    return language, halfway


def check_model(manifest: Manifest, language: LanguageModel) -> None:
    """Refuse a model that is not the bundle's.

    Raises:
        BundleMismatch: says which part differs.
    """
    for what, expected, given in differences(manifest.model, language.fingerprint):
        raise BundleMismatch(
            f"bundle {manifest.name} was built for another {what} "
            f"(SHA-256 {(expected or 'none')[:12]}, given {(given or 'none')[:12]}); rebuild the bundle or give that model"
        )


def _encoded(
    path: Path, parameters: Parameters, device: torch.device, indexes: IndexOpener
) -> EncodedCorpus | None:
    if parameters.encoder is None:
        return None
    vectors = mapped(path / "features" / ENCODED)
    return EncodedCorpus(SentenceEncoder.load(path / ENCODER, device), vectors, indexes.open(ENCODED_TEXTS))


def _modules(reader: ReadsSignals, store: ExampleStore, path: Path) -> ModuleEvidence | None:
    if not isinstance(reader, AdapterReader) or not isinstance(store, CoreStore | TextStore):
        return None
    return ModuleEvidence(store, ModuleMap.of(reader.names), UsualShares.load(path / USUAL_SHARES))
