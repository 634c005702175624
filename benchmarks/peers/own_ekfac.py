"""Our own EK-FAC tier over the whole corpus, timed like kronfluence's: the audited model alone, and the path from the base model to it."""

from dataclasses import dataclass

import numpy as np

from benchmarks.peers.subject import Scored, Subject, timed
from wherefrom.attribution.ekfac.path import PathScores
from wherefrom.attribution.ekfac.scores import EkfacScorer, EkfacScores, build_ekfac
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.trajectory import HALF_WAY, model_between
from wherefrom.attribution.progress import silent
from wherefrom.evaluation.cost import folder_bytes


@dataclass(frozen=True)
class _Point:
    """Scores under one model, with processor seconds and stored bytes."""

    scores: EkfacScores
    build: float
    query: float
    stored: float


def ekfac(subject: Subject) -> dict[str, Scored]:
    """The product of gradients of the audited model and its cosine; the sum over the path where the folder holds `base/`."""
    audited = subject.language()
    last = _score(subject, audited, 1.0)
    cost = (last.build, last.query, last.stored)
    note = "damping .1 of the mean, linear layers of the blocks, data labels; norms of the corpus stored, the corpus is read again per request"
    found = {
        "wherefrom EK-FAC": Scored(last.scores.dot.numpy(), *cost, note),
        "wherefrom EK-FAC, cosine": Scored(last.scores.cosine.numpy(), *cost, note),
    }
    if subject.folder.base.is_dir():
        base = load_model(subject.folder.base)
        points = [last, _score(subject, model_between(base, audited, HALF_WAY), HALF_WAY)]
        found["wherefrom EK-FAC path"] = Scored(
            PathScores.of([one.scores for one in points]).balanced.numpy(),
            sum(one.build for one in points),
            sum(one.query for one in points),
            sum(one.stored for one in points),
            "the full tier with a midpoint: gradients of the audited model and half-way to it",
        )
    return found


def _score(subject: Subject, language: LanguageModel, point: float) -> _Point:
    folder = subject.scratch / f"{point:.2f}"
    numbers = np.arange(len(subject.rows))
    factors, built = timed(lambda: build_ekfac(language, subject.rows, folder, progress=silent))
    scorer = EkfacScorer(language, factors)
    scores, asked = timed(lambda: scorer.stored_scores(subject.asked, subject.rows, numbers))
    return _Point(scores, built, asked / len(subject.asked), folder_bytes(folder) / len(subject.rows))
