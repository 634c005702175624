"""Our own tiers over a bundle: projection, exact kernel in both forms, and the two heads of the pipeline."""

import shutil
from collections.abc import Callable
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
class ReadBundle:
    """An opened bundle and the queries under it, with processor seconds."""

    bundle: Bundle
    attributor: LanguageAttributor
    queries: list[ReadQuery]
    #: Of the queries' pass through the model, per query.
    pass_seconds: float
    build_seconds: float

    @classmethod
    def of(
        cls, build: Callable[[], Bundle], ask: Callable[[LanguageAttributor], list[ReadQuery]]
    ) -> "ReadBundle":
        """Build a bundle and read the queries under it."""
        bundle, built = timed(build)
        attributor = LanguageAttributor(bundle)
        queries, seconds = timed(lambda: ask(attributor))
        return cls(bundle, attributor, queries, seconds / len(queries), built)

    def stages(self, *names: str) -> float:
        """Processor seconds of stages of the build: the card's shares of the whole."""
        spent = read_card(self.bundle.path)["cost"]["seconds"]
        return self.build_seconds * float(sum(spent[name] for name in names)) / float(sum(spent.values()))

    def exact(self) -> Scored:
        """The kernel of all pairs."""
        scores, seconds = timed(lambda: exact_scores(self.bundle, self.queries, silent))
        layers = list(self.bundle.manifest.parameters.layers)
        of = f"hidden states {layers}" if layers else "all adapted layers"
        return Scored(
            scores,
            self.stages("model_pass", "whitening"),
            self.pass_seconds + seconds / len(self.queries),
            self.bundle.store.bytes_per_example,
            f"exact kernel of all pairs, {of}, int8",
        )

    def retrieved(self) -> Scored:
        """The projection's estimate of all pairs."""
        vectors = self.bundle.vectors
        scores, seconds = timed(lambda: projected_scores(self.bundle, self.queries))
        return Scored(
            scores,
            self.stages("model_pass", "whitening", "projection"),
            self.pass_seconds + seconds / len(self.queries),
            vectors.nbytes / len(vectors),
            f"{vectors.shape[1]} numbers per example; index search not used, all examples scored",
        )


def forward(subject: Subject) -> dict[str, Scored]:
    """All tiers of a bundle of form `forward`, the product's choice for a model this shallow."""
    read = _read(subject, "forward")
    retrieved = read.retrieved()
    exact = {"wherefrom retrieved": retrieved, "wherefrom forward": read.exact()}
    return exact | _pipeline(read, retrieved.scores)


def activation(subject: Subject) -> dict[str, Scored]:
    """The exact kernel of form `activation`."""
    return {"wherefrom activation": _read(subject, "activation").exact()}


def _read(subject: Subject, form: Literal["forward", "activation"]) -> ReadBundle:
    folder, path = subject.folder, subject.scratch / form
    shutil.rmtree(path, ignore_errors=True)
    return ReadBundle.of(
        lambda: folder.bundle(path, folder.options(form)),
        lambda attributor: read_file(attributor, folder.queries_file("queries")),
    )


def _pipeline(read: ReadBundle, projected: Matrix) -> dict[str, Scored]:
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
