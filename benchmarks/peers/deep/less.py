r"""LESS (arXiv:2402.04333), written from the paper and its code (princeton-nlp/LESS), without the random projection.

At a checkpoint with Adam's moments m and v, and g the gradient of a row's mean completion loss over all LoRA weights:

    training example    d = (b1 m + (1 - b1) g) / sqrt(b2 v + (1 - b2) g^2 + e)       the step that Adam would make
    query               g
    score               sum over checkpoints of the mean learning rate since the last one, times cos(d, g)

The checkpoints are the ends of the epochs; e stands inside of the root, as in the code. LESS projects both sides to 8,192 random numbers, whose inner products estimate these cosines
without bias; here they are exact, which can only help it. The recipe is trained again on all rows, since an adapter's folder holds no moments.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.deep_bank.material import RECIPE, SEEDS
from benchmarks.peers.deep.gradients import Gradients, gradients_of
from benchmarks.peers.deep.subject import AdapterSubject, lora_linears
from benchmarks.peers.subject import Scored, timed
from benchmarks.program import report
from wherefrom.attribution.ekfac.factors import run_batches
from wherefrom.attribution.ekfac.gradients import LinearTaps, Visit
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import Training, checked_weights

_PROJECTED = 8192


@dataclass(frozen=True)
class Moments:
    """Adam's state of one matrix `[O, I]`, as the optimiser holds it."""

    mean: Tensor
    square: Tensor

    def step(self, gradients: Tensor, recipe: Recipe) -> Tensor:
        """The direction of Adam's step for each row's gradient, `[B, O I]`."""
        first, second = recipe.betas
        mean = first * self.mean.flatten() + (1.0 - first) * gradients
        square = second * self.square.flatten() + (1.0 - second) * gradients.square()
        return mean / (square + recipe.epsilon).sqrt()


@dataclass(frozen=True)
class Checkpoint:
    """A training at the end of an epoch."""

    language: LanguageModel
    #: By name of the layer.
    moments: Mapping[str, Moments]
    #: Mean learning rate since the last checkpoint.
    rate: float


def less(subject: AdapterSubject) -> dict[str, Scored]:
    """LESS over the ends of the epochs."""
    each = [_of_checkpoint(one, subject) for one in checkpoints(subject, RECIPE)]
    note = f"our code after the paper: exact instead of {_PROJECTED:,} random numbers, ends of {len(each)} epochs, the training itself not counted"
    return {
        "LESS": Scored(
            torch.stack([one.scores for one in each]).sum(dim=0).numpy(),
            sum(one.seconds_corpus for one in each),
            sum(one.seconds_queries for one in each) / len(subject.asked),
            4.0 * _PROJECTED * len(each),
            note,
        )
    }


@dataclass(frozen=True)
class _Part:
    """What one checkpoint adds, and its processor seconds."""

    scores: Tensor  # [Q, N]
    seconds_corpus: float
    seconds_queries: float


def _of_checkpoint(one: Checkpoint, subject: AdapterSubject) -> _Part:
    taps = LinearTaps(one.language, lora_linears(one.language))
    asked, on_queries = timed(lambda: gradients_of(taps, subject.asked))
    cosines, on_corpus = timed(lambda: step_cosines(taps, subject.rows, one.moments, asked))
    return _Part(one.rate * cosines, on_corpus, on_queries)


def step_cosines(
    taps: LinearTaps, rows: Sequence[TokenRow], moments: Mapping[str, Moments], asked: Gradients
) -> Tensor:
    """Cosines of the queries' gradients with Adam's steps for each row, over all matrices together, `[Q, N]`."""
    queries = len(next(iter(asked.values())))
    found, squares = torch.zeros(queries, len(rows)), torch.zeros(len(rows))
    tokens = torch.tensor([row.explained_tokens for row in rows])

    def visit(batch: list[int]) -> Visit:
        def add(name: str, x: Tensor, g: Tensor, _mask: Tensor) -> None:
            gradients = (g.transpose(1, 2) @ x).flatten(1) / tokens[batch, None]  # [B, O I], of mean losses
            steps = moments[name].step(gradients, RECIPE)
            found[:, batch] += asked[name] @ steps.T
            squares[batch] += steps.square().sum(dim=1)

        return add

    run_batches(taps, rows, visit, names=taps.names)
    norms = torch.stack([one.square().sum(dim=1) for one in asked.values()]).sum(dim=0).sqrt()  # [Q]
    return found / norms[:, None] / squares.sqrt()


def checkpoints(subject: AdapterSubject, recipe: Recipe) -> Iterator[Checkpoint]:
    """Train on all rows as the adapter was trained; the state at the end of each epoch, to be used before the next is asked for."""
    base = load_model(subject.folders.model)
    training = Training(base, subject.rows, recipe, seed=SEEDS[0])
    weights, steps = checked_weights(subject.rows, None), len(training.batches)
    rates: list[float] = []
    while not training.finished:
        rates.append(recipe.learning_rate * recipe.factor(training.done, steps))
        training.step(weights)
        if training.done % (steps // recipe.epochs) == 0:
            report([f"LESS: step {training.done} of {steps}"])
            moments = {name: Moments(*both) for name, both in training.moments().items()}
            frozen = training.copy().trained()
            yield Checkpoint(replace(base, model=frozen), moments, sum(rates) / len(rates))
            rates = []
