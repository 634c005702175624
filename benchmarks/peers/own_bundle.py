"""Our own tiers over a bundle: projection, exact kernel in both forms, and the two heads of the pipeline."""

import shutil
from dataclasses import dataclass
from typing import Literal

from benchmarks.peers.subject import Scored, Subject, timed
from benchmarks.small_model import CANDIDATE_SHARE
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.offline import exact_scores
from wherefrom.attribution.progress import silent
from wherefrom.attribution.query import ReadQuery
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation.asking import read_file
from wherefrom.evaluation.cost import folder_bytes
from wherefrom.evaluation.heads import order_shown, projected_scores, stored_influence


@dataclass(frozen=True)
class _Read:
    """An opened bundle and the queries under it, with processor seconds."""

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
    projected, seconds = timed(lambda: projected_scores(read.bundle, read.queries))
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
    folder, path = subject.folder, subject.scratch / form
    shutil.rmtree(path, ignore_errors=True)
    bundle, built = timed(lambda: folder.bundle(path, folder.options(form)))
    attributor = LanguageAttributor(bundle)
    queries, seconds = timed(lambda: read_file(attributor, folder.queries_file("queries")))
    return _Read(bundle, attributor, queries, seconds / len(queries), built)


def _exact(read: _Read) -> Scored:
    scores, seconds = timed(lambda: exact_scores(read.bundle, read.queries, silent))
    return Scored(
        scores,
        read.stages("model_pass", "whitening"),
        read.pass_seconds + seconds / len(read.queries),
        read.bundle.store.bytes_per_example,
        f"exact kernel of all pairs, hidden states {list(read.bundle.manifest.parameters.layers)}, int8",
    )


def _pipeline(read: _Read, projected: Matrix) -> dict[str, Scored]:
    """The influence that is stored and the order that is shown."""
    scored, seconds = timed(lambda: [read.attributor.score(one) for one in read.queries])
    each = read.pass_seconds + seconds / len(read.queries)
    cost = (read.build_seconds, each, folder_bytes(read.bundle.path) / len(read.bundle.store))
    note = f"{CANDIDATE_SHARE:.0%} of the corpus exactly, the rest by projection"
    return {
        "wherefrom pipeline, influence": Scored(stored_influence(projected, scored), *cost, note),
        "wherefrom pipeline, order shown": Scored(
            order_shown(projected, scored), *cost, note + "; fused with BM25 and similarity"
        ),
    }
