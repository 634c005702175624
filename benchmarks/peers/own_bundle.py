"""Our own tiers over a bundle: projection, exact kernel in both forms, and the two heads of the pipeline."""

import shutil
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.peers.subject import MAX_TOKENS, Scored, Subject, folder_bytes, timed
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.ranking_metrics import Matrix

#: Candidates are at most this share of the corpus.
CANDIDATE_SHARE = 0.05


@dataclass(frozen=True)
class _Read:
    """An opened bundle and the queries' signals under it, with processor seconds."""

    bundle: Bundle
    attributor: LanguageAttributor
    queries: list[ReadQuery]
    #: Of the queries' pass through the model, per query.
    pass_seconds: float
    build_seconds: float

    def stages(self, *names: str) -> float:
        """Processor seconds of stages of the build: the card's shares of the whole."""
        spent = read_card(self.bundle.path)["cost"]["seconds"]
        return self.build_seconds * float(sum(spent[name] for name in names)) / float(sum(spent.values()))


def forward(subject: Subject) -> dict[str, Scored]:
    """All tiers of a bundle of form `forward`, the product's choice for a model this shallow."""
    read = _read(subject, "forward")
    vectors = read.bundle.vectors
    projected, seconds = timed(lambda: np.stack([vectors @ one.signals.projected for one in read.queries]))
    retrieved = Scored(
        projected,
        read.stages("model_pass", "whitening", "projection"),
        read.pass_seconds + seconds / len(read.queries),
        vectors.nbytes / len(subject.rows),
        f"{vectors.shape[1]} numbers per example; index search not used, all examples scored",
    )
    return {"wherefrom retrieved": retrieved, "wherefrom forward": _exact(read)} | _pipeline(read, projected)


def activation(subject: Subject) -> dict[str, Scored]:
    """The exact kernel of form `activation`."""
    return {"wherefrom activation": _exact(_read(subject, "activation"))}


def _read(subject: Subject, form: Literal["forward", "activation"]) -> _Read:
    path = subject.scratch / form
    shutil.rmtree(path, ignore_errors=True)
    building = partial(
        build_bundle,
        folders=ModelFolders(subject.yardstick / "audited"),
        corpus_path=subject.yardstick / "corpus.jsonl",
        out=path,
        options=BuildOptions(form=form, candidates=int(len(subject.rows) * CANDIDATE_SHARE)),
        progress=_silent,
    )
    _, built = timed(building)
    bundle = open_bundle(path, ModelFolders(subject.yardstick / "audited"))
    attributor = LanguageAttributor(bundle)
    asked, _ = read_queries(subject.yardstick / "queries.jsonl")
    prepared = prepare_all(attributor, asked, max_tokens=MAX_TOKENS, over_long="truncate")
    signals, seconds = timed(lambda: signals_of_all(attributor, prepared))
    return _Read(bundle, attributor, signals, seconds / len(signals), built)


def _exact(read: _Read) -> Scored:
    scores, seconds = timed(lambda: exact_scores(read.bundle, read.queries, _silent))
    return Scored(
        scores,
        read.stages("model_pass", "whitening"),
        read.pass_seconds + seconds / len(read.queries),
        read.bundle.store.bytes_per_example,
        f"exact kernel of all pairs, hidden states {list(read.bundle.manifest.parameters.layers)}, int8",
    )


def _pipeline(read: _Read, projected: Matrix) -> dict[str, Scored]:
    """The influence that is stored and the order that is shown.

    Examples that are no candidates keep the projection's score, in the order behind all candidates.
    """
    scored, seconds = timed(lambda: [read.attributor.score(one).scores for one in read.queries])
    effect, shown = projected.copy(), projected - np.float32(1e3)
    for row, one in enumerate(scored):
        effect[row, one.candidates.rows] = one.influence
        shown[row, one.candidates.rows] = one.shown
    each = read.pass_seconds + seconds / len(read.queries)
    cost = (read.build_seconds, each, folder_bytes(read.bundle.path) / len(read.bundle.store))
    note = f"{CANDIDATE_SHARE:.0%} of the corpus exactly, the rest by projection"
    return {
        "wherefrom pipeline, influence": Scored(effect, *cost, note),
        "wherefrom pipeline, order shown": Scored(shown, *cost, note + "; fused with BM25 and similarity"),
    }


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
