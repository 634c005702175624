"""With an acceptable answer the kernel is the difference of two: exactly, in every part of the engine that uses it."""

import numpy as np
import pytest
import torch

from tests.numerics.test_kernel import LENGTHS, random_factors
from tests.tiny import opened, tiny_queries, token_factors
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.kernel import kernel_norms, kernel_scores
from wherefrom.attribution.query import contrast
from wherefrom.records import Message, Query

PREFERRED = "Please ask our support team for the rules that hold in your case."


def joined(parts: list[Factors]) -> Factors:
    """Rows behind each other."""
    return Factors(
        torch.cat([one.a for one in parts]),
        torch.cat([one.b for one in parts]),
        tuple(one.lengths[0] for one in parts),
    )


def test_difference_of_two_kernels() -> None:
    """Kernel and squared norm of the contrast, for a batch in which only some queries have an acceptable answer."""
    completions = [random_factors((4,), seed=1), random_factors((6,), seed=2), random_factors((2,), seed=3)]
    answers = [random_factors((5,), seed=4), random_factors((3,), seed=5)]
    packed = pack(random_factors(LENGTHS, seed=6))
    mixed = contrast(joined(completions + answers), [True, False, True])
    assert mixed.lengths == (9, 6, 5)
    own = [kernel_scores(one, packed)[0] for one in completions]
    other = [kernel_scores(one, packed)[0] for one in answers]
    expected = torch.stack([own[0] - other[0], own[1], own[2] - other[1]])
    torch.testing.assert_close(kernel_scores(mixed, packed), expected, rtol=1e-4, atol=1e-2)
    norms = kernel_norms(mixed)
    cross = kernel_scores(completions[0], pack(answers[0]))[0, 0]
    squared = kernel_norms(completions[0]) ** 2 + kernel_norms(answers[0]) ** 2 - 2 * cross
    torch.testing.assert_close(norms[0] ** 2, squared[0], rtol=2e-2, atol=1.0)
    torch.testing.assert_close(norms[1], kernel_norms(completions[1])[0])


def test_no_acceptable_answers() -> None:
    """Nothing is copied where no query has one."""
    factors = random_factors(LENGTHS)
    assert contrast(factors, [False] * len(LENGTHS)) is factors


@pytest.mark.parametrize("form", ["forward", "activation"])
def test_engine(form: str) -> None:
    """In one batch with other queries: magnitude = k(completion) - k(acceptable answer); the loss and hidden state stay the completion's."""
    attributor = LanguageAttributor(opened(form))
    row = tiny_queries(1)[0]
    turns = tuple(Message.model_validate(turn) for turn in row["messages"])
    asked = [
        Query(key="plain", turns=turns, completion=row["completion"]),
        Query(key="both", turns=turns, completion=row["completion"], preferred=PREFERRED),
        Query(key="answer", turns=turns, completion=PREFERRED),
    ]
    prepared = [attributor.prepare(one, max_tokens=512, over_long="reject") for one in asked]
    assert prepared[1].tokens == 2 * max(prepared[0].tokens, prepared[2].tokens)
    plain, both, answer = (one.signals for one in attributor.signals(prepared))
    packed = token_factors(opened(form)).range(0, 40)
    own, other, mixed = (kernel_scores(one.factors, packed)[0] for one in (plain, answer, both))
    scale = float(own.abs().max())
    assert float((mixed - (own - other)).abs().max()) < 1e-3 * scale
    assert float((own - other).abs().max()) > 0.01 * scale
    assert both.loss == pytest.approx(plain.loss, rel=1e-4, abs=1e-6)
    assert both.tokens == plain.tokens
    np.testing.assert_allclose(both.pooled, plain.pooled, atol=1e-4)
    found = opened(form).projection.apply(both.factors, both.norm[None])
    np.testing.assert_allclose(found[0].numpy(), both.projected, atol=1e-4)
