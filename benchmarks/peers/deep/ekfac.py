"""Our own EK-FAC over the LoRA matrices, beside kronfluence's on the same ones."""

from benchmarks.peers.subject import Material, Scored, timed
from wherefrom.attribution.ekfac.factors import DAMPING, fit_ekfac
from wherefrom.attribution.ekfac.scores import EkfacScorer
from wherefrom.attribution.progress import silent


def ekfac(subject: Material) -> dict[str, Scored]:
    """Products and cosines of preconditioned gradients of A and B."""
    language = subject.language()
    factors, built = timed(
        lambda: fit_ekfac(language, subject.rows, modules=subject.linears(language), progress=silent)
    )
    scorer = EkfacScorer(language, factors)
    scores, asked = timed(lambda: scorer.scores(subject.asked, subject.rows))
    stored = sum(
        4 * (one.q_a.numel() + one.q_s.numel() + one.eigenvalues.numel()) for one in factors.layers.values()
    )
    cost = (built, asked / len(subject.asked), stored / len(subject.rows))
    note = f"damping {DAMPING:g} of the mean, data labels, {len(factors.layers)} matrices; stores factors only, the corpus is read again per request"
    return {
        "EK-FAC of A and B (ours)": Scored(scores.dot.numpy(), *cost, note),
        "EK-FAC of A and B (ours), cosine": Scored(scores.cosine.numpy(), *cost, note),
    }
