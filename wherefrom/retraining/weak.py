"""Cheap stand-ins for retraining on models too large to train again: one gradient step on an example. Marked weak.

With theta the final weights, z the example, g = d L(z) / d theta (mean completion loss), clipped to unit norm, and s the step length:

    one_step:  L(q; theta) - L(q; theta - s g)      the tail-patch of arXiv:2410.17413, in nats instead of probability
    unlearn:   L(q; theta + s g) - L(q; theta)      one ascent step on the example

Positive = the example makes the output more likely, as everywhere. Both ask what one more (or one less) look at the example would do
to the finished model, not what the training would have done without it: no momentum, no later steps, no replacement by similar
rows. They are to first order s times the plain gradient product.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.training import batch_loss, mean_losses

#: Length of the step, as a length in weight space: large enough for float32, small enough to stay near linear.
STEP = 1e-2


def one_step(
    language: LanguageModel, queries: Sequence[TokenRow], example: TokenRow, *, step: float = STEP
) -> npt.NDArray[np.float64]:
    """How much one descent step on an example lowers each query's loss, nats `[Q]`; weak evidence.

    Args:
        language: The final model; its weights are the same afterwards.
        queries: The outputs as tokens.
        example: The training example as tokens.
        step: Length of the step in weight space, > 0.

    Raises:
        ConfigurationError: the step is not positive.
    """
    before = mean_losses(language.model, queries).astype(np.float64)
    with _moved(language, example, by=-_checked(step)):
        return before - mean_losses(language.model, queries)


def unlearn(
    language: LanguageModel, queries: Sequence[TokenRow], example: TokenRow, *, step: float = STEP
) -> npt.NDArray[np.float64]:
    """How much one ascent step on an example raises each query's loss, nats `[Q]`; weak evidence. See `one_step`."""
    before = mean_losses(language.model, queries).astype(np.float64)
    with _moved(language, example, by=_checked(step)):
        return mean_losses(language.model, queries) - before


@contextmanager
def _moved(language: LanguageModel, example: TokenRow, *, by: float) -> Iterator[None]:
    """The model with its weights moved along the example's gradient of at most unit norm, and put back bit for bit."""
    weights = list(language.model.parameters())
    kept = [weight.detach().clone() for weight in weights]
    directions = _gradient(language, example, weights)
    try:
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(direction, alpha=by)
        yield
    finally:
        with torch.no_grad():
            for weight, old in zip(weights, kept, strict=True):
                weight.copy_(old)


def _gradient(language: LanguageModel, example: TokenRow, weights: list[Tensor]) -> list[Tensor]:
    asked = [weight.requires_grad for weight in weights]
    for weight in weights:
        weight.requires_grad = True
    try:
        loss = batch_loss(language.model, [example], torch.ones(1))
        found = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)
    finally:
        for weight, was in zip(weights, asked, strict=True):
            weight.requires_grad = was
    norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in found])))
    return [one / max(norm, 1.0) for one in found]


def _checked(step: float) -> float:
    if not step > 0.0:
        raise ConfigurationError(f"step must be > 0, not {step}")
    return step
