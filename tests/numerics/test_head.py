"""The output head in blocks against a loop over tokens and vocabulary."""

import math

import pytest
import torch

from tests.numerics.tolerances import FLOAT32
from wherefrom.attribution.models import head
from wherefrom.attribution.models.head import head_errors

TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def example(scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, targets, weight and bias."""
    generator = torch.Generator().manual_seed(3)
    states = scale * torch.randn(TOKENS, WIDTH, generator=generator)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator)
    targets = torch.randint(VOCABULARY, (TOKENS,), generator=generator)
    return states, targets, weight, torch.randn(VOCABULARY, generator=generator)


@pytest.mark.parametrize("block_tokens", [1, 3, TOKENS, 100])
@pytest.mark.parametrize("biased", [False, True])
def test_head_equals_a_loop(block_tokens: int, biased: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token, entry by entry, whatever the size of the blocks."""
    monkeypatch.setattr(head, "BLOCK_NUMBERS", block_tokens * VOCABULARY)
    states, targets, weight, bias = example()
    losses, errors = head_errors(states, targets, weight=weight, bias=bias if biased else None)
    for token in range(TOKENS):
        logits = [
            sum(float(states[token, one] * weight[word, one]) for one in range(WIDTH))
            + (float(bias[word]) if biased else 0.0)
            for word in range(VOCABULARY)
        ]
        total = sum(math.exp(logit) for logit in logits)
        target = int(targets[token])
        assert float(losses[token]) == pytest.approx(math.log(total) - logits[target], rel=1e-4)
        expected = sum(
            (math.exp(logit) / total - (word == target)) * weight[word] for word, logit in enumerate(logits)
        )
        torch.testing.assert_close(errors[token], torch.as_tensor(expected), **FLOAT32)


def test_large_logits_stay_finite() -> None:
    """Exponentials are of differences to the largest logit; a certain token has loss and error zero."""
    states, _, weight, bias = example(scale=1e4)
    certain = (states @ weight.T + bias).argmax(dim=1)
    losses, errors = head_errors(states, certain, weight=weight, bias=bias)
    torch.testing.assert_close(losses, torch.zeros(TOKENS))
    torch.testing.assert_close(errors, torch.zeros(TOKENS, WIDTH))
    losses, errors = head_errors(states, (certain + 1) % VOCABULARY, weight=weight, bias=bias)
    assert bool(losses.isfinite().all())
    assert bool(errors.isfinite().all())


def test_no_token() -> None:
    """A batch of nothing."""
    _, _, weight, _ = example()
    losses, errors = head_errors(
        torch.empty(0, WIDTH), torch.empty(0, dtype=torch.long), weight=weight, bias=None
    )
    assert (losses.shape, errors.shape) == ((0,), (0, WIDTH))
