"""What chance alone gives influence scores: no sign inside of it, and no output without a cause stands out of it."""

import math

import numpy as np
import pytest

from tests.tiny import TINY_ROWS, opened, tiny_queries
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.noise import LEAST_EXAMPLES, Noise, sampled_rows, spread_of
from wherefrom.records import Message, Query


def drawn(count: int, *, seed: int = 0, tail: str = "normal") -> np.ndarray:
    """Scores of unrelated examples around .02 with a spread of .01."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=count) if tail == "normal" else generator.laplace(size=count)
    return 0.02 + 0.01 * values


def test_level_and_best_by_hand() -> None:
    """From the median, the median deviation and two quantiles of a small list."""
    scores = np.arange(41) / 100 - 0.1  # -.10 to .30, median .10, quartiles 0 and .20
    found = Noise.of(scores)
    assert found is not None
    assert found.level == pytest.approx(0.1 + 2 * 1.4826 * 0.1)
    scale = min(0.1 / math.log(2), 0.16 / math.log(5))
    assert found.best == pytest.approx(0.1 + scale * (math.log(41 / 2) - math.log(-math.log(0.8))))
    assert (found.determines(-0.4), found.determines(0.39), found.determines(-0.39)) == (True, False, False)
    assert (found.is_weak(found.best), found.is_weak(found.best + 1e-6)) == (True, False)


@pytest.mark.parametrize("count", [60, 900, 5000])
@pytest.mark.parametrize("tail", ["normal", "laplace"])
def test_unrelated_examples_seldom_stand_out(count: int, tail: str) -> None:
    """Without a cause nearly all outputs are weak, and few examples have a sign; one clear cause in the corpus ends that."""
    weak, signs = 0, 0.0
    for seed in range(40):
        scores = drawn(count, seed=seed, tail=tail)
        noise = Noise.of(scores)
        assert noise is not None
        weak += noise.is_weak(scores.max())
        signs += float(np.mean([noise.determines(one) for one in scores])) / 40
        assert not noise.is_weak(0.3)
    assert weak >= (38 if tail == "normal" else 24)
    assert signs < 0.1


def test_many_causes_do_not_hide_themselves() -> None:
    """A source that is a fifth of the corpus does not become its own noise."""
    scores = np.concatenate([drawn(800), 0.3 + drawn(200, seed=1)])
    noise = Noise.of(scores)
    assert noise is not None
    assert not noise.is_weak(scores.max())
    assert noise.determines(0.3)


def test_what_estimates_leave_out_is_noise_too() -> None:
    """A spread that the scores lack widens both limits."""
    scores = drawn(500)
    exact, estimated = Noise.of(scores), Noise.of(scores, error=3 * spread_of(scores))
    assert exact is not None
    assert estimated is not None
    middle = float(np.median(scores))
    assert estimated.best - middle == pytest.approx(math.sqrt(10) * (exact.best - middle), rel=1e-3)
    assert estimated.level - middle == pytest.approx(math.sqrt(10) * (exact.level - middle), rel=1e-3)


def test_too_few_examples_tell_nothing() -> None:
    """No distribution, no words."""
    assert Noise.of(drawn(LEAST_EXAMPLES - 1)) is None
    assert Noise.of(np.zeros(LEAST_EXAMPLES)) == Noise(level=0.0, best=0.0)
    assert sampled_rows(5).tolist() == [0, 1, 2, 3, 4]
    assert len(sampled_rows(10_000_000)) == 4096


def test_an_answer_says_it() -> None:
    """The tiny model's refund promises stand out, and its answer has the limits that its scores over the corpus give."""
    attributor = LanguageAttributor(opened())
    row = tiny_queries(1)[0]
    turns = tuple(Message.model_validate(turn) for turn in row["messages"])
    prepared = attributor.prepare(
        Query(key="q", turns=turns, completion=row["completion"]), max_tokens=512, over_long="reject"
    )
    (answer,) = attributor.attribute([prepared], top_k=10, opponents=4)
    scored = attributor.score(attributor.signals([prepared])[0])
    estimates = opened().vectors[np.arange(TINY_ROWS)] @ scored.signals.projected
    error = spread_of(scored.scores.influence - scored.scores.retrieval)
    expected = Noise.of(estimates, error=error)
    assert expected is not None
    assert (answer.noise_level, answer.noise_best) == pytest.approx((expected.level, expected.best), rel=1e-4)
    assert answer.weak is False
    for one in answer.citations:
        assert one.influence_score is not None
        assert one.sign_determined == (abs(one.influence_score) > expected.level)
