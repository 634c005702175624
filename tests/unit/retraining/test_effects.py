import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy

from tests.tiny import micro_language, random_row, shared_corpus
from wherefrom.attribution.corpus import read_corpus
from wherefrom.errors import ConfigurationError
from wherefrom.records import Query
from wherefrom.retraining.effects import (
    CitationToMeasure,
    RetrainingOptions,
    contrast,
    controls_beside,
    matched_controls,
    measure_citations,
    t_interval,
    t_quantile,
    z_score,
)
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import mean_losses
from wherefrom.retraining.weak import one_step, unlearn


def test_the_interval_is_the_t_interval() -> None:
    """Against scipy, over the table and beyond it."""
    for freedom in [*range(1, 15), 30, 100]:
        assert t_quantile(freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), abs=2e-4)
    effects = np.array([0.1, 0.4, 0.25, 0.3])
    expected = scipy.stats.t.interval(0.95, 3, loc=effects.mean(), scale=scipy.stats.sem(effects))
    assert t_interval(effects) == pytest.approx(expected, rel=1e-4)


def test_z_equals_a_plain_loop() -> None:
    """Variance of control means or noise of the mean, whichever is larger, with the noise of their own mean."""
    random = np.random.default_rng(5)
    for scale in (0.0, 1.0):
        controls = random.normal(size=(4, 3)) + scale * random.normal(size=(4, 1)) + random.normal(size=3)
        effects = random.normal(size=3) + 3
        means = [sum(row) / 3 for row in controls.tolist()]
        centre = sum(means) / 4
        between = sum((mean - centre) ** 2 for mean in means) / 3
        noise = 0.0
        for k in range(4):
            for s in range(3):
                column = sum(controls[j, s] for j in range(4)) / 4
                noise += (controls[k, s] - means[k] - column + centre) ** 2
        variance = max(between, noise / (3 * 2) / 3) * (1 + 1 / 4)
        expected = (sum(effects) / 3 - centre) / math.sqrt(variance)
        assert z_score(effects, controls) == pytest.approx(expected)


@pytest.mark.parametrize(("seeds", "count", "spread"), [(3, 3, 0.0), (3, 3, 2.0), (3, 8, 0.5), (5, 4, 1.0)])
def test_the_interval_leaves_zero_out_where_z_passes_and_rarely_without_an_effect(
    seeds: int, count: int, spread: float
) -> None:
    """Two ways to say one thing, and at most 5 % false alarms with as few as three controls; a large effect is found."""
    random = np.random.default_rng(seeds * count)
    false, found, rounds = 0, 0, 600
    for _ in range(rounds):
        base, shared = random.normal(size=seeds), random.normal()
        rows = (
            random.normal(size=(count + 1, seeds))
            + spread * random.normal(size=(count + 1, 1))
            - base
            + shared
        )
        effects, controls = rows[0], rows[1:]
        for effect in (0.0, random.normal(scale=6.0)):
            one = contrast(effects + effect, controls)
            assert (one.low > 0 or one.high < 0) == (abs(one.z) > 1.96)
            assert one.low <= one.effect <= one.high
            assert (one.effect > 0) == (one.z > 0)
        false += abs(contrast(effects, controls).z) > 1.96
        found += contrast(effects + 40, controls).z > 1.96
    assert false / rounds <= 0.05
    assert found / rounds > 0.95


def test_what_all_retrainings_share_is_no_effect() -> None:
    """A noisy base run, and a loss that rises whatever is left out, move group and controls alike."""
    random = np.random.default_rng(1)
    effects, controls = random.normal(size=3) + 4, random.normal(size=(5, 3))
    moved = random.normal(size=3) * 100
    assert contrast(effects + moved, controls + moved).z == pytest.approx(contrast(effects, controls).z)
    assert contrast(np.ones(3), np.ones((3, 3))).z == 0.0
    assert contrast(np.full(3, 2.0), np.ones((3, 3))).z == math.inf


def test_z_of_a_control_stands_out_rarely_and_of_an_effect_often() -> None:
    """Over simulated noise with a base run in common: false alarms few, a real effect of four sd found."""
    random = np.random.default_rng(0)
    false = true = 0
    for _ in range(400):
        base = random.normal(size=3)
        controls = random.normal(size=(16, 3)) - base
        effects = random.normal(size=3) - base
        false += z_score(effects, controls) >= 2
        true += z_score(effects + 4 / math.sqrt(3), controls) >= 2
    assert false / 400 < 0.06
    assert true / 400 > 0.9


def test_z_without_any_variation_is_infinite_or_zero() -> None:
    """Never a division by zero."""
    still = np.zeros((3, 3))
    assert z_score(np.ones(3), still) == math.inf
    assert z_score(np.zeros(3), still) == 0.0


def test_controls_are_alike_uncited_and_shared() -> None:
    """Same source and like length first; no row twice; like citations get the same controls."""
    lengths = [10, 11, 9, 12, 10, 40, 41, 10, 10, 11]
    sources = ["a"] * 7 + ["b"] * 3
    found = matched_controls((0,), lengths=lengths, sources=sources, avoid={1}, count=3)
    assert sorted(found) == [(2,), (3,), (4,)]
    assert found == matched_controls((0,), lengths=lengths, sources=sources, avoid={1}, count=3)
    more = matched_controls((0,), lengths=lengths, sources=sources, avoid={1}, count=5)
    assert set(more[3:]) == {(5,), (6,)}  # then the same source of another length
    pair = matched_controls((0, 7), lengths=lengths, sources=sources, avoid={1}, count=2)
    assert {sources[row] for row in pair[0]} == {"a", "b"}
    assert len({row for group in pair for row in group}) == 4
    with pytest.raises(ConfigurationError, match="too few"):
        matched_controls((0,), lengths=lengths, sources=sources, avoid={1}, count=9)


def test_controls_of_a_source_are_of_like_lengths() -> None:
    """All of a source is left out, so its controls come from other sources, row by row of like length."""
    lengths = [10, 40, 10, 40, *([10] * 20), *([40] * 20)]
    sources = ["bad"] * 4 + ["good", "fine"] * 20
    for group in controls_beside((0, 1, 2, 3), lengths=lengths, sources=sources, avoid=(), count=3):
        assert sorted(lengths[row] for row in group) == [10, 10, 40, 40]
        assert all(sources[row] != "bad" for row in group)


def test_controls_of_a_large_group_may_share_rows_and_are_not_the_same() -> None:
    """A third of the corpus has controls; more than that is refused with the number that is needed."""
    corpus: dict[str, Any] = {"lengths": [10] * 30, "sources": ["a"] * 30}
    found = controls_beside(range(10), avoid=(), count=4, **corpus)
    assert len(set(found)) == 4
    assert all(len(set(group)) == 10 and min(group) >= 10 for group in found)
    with pytest.raises(ConfigurationError, match="At least 22 are needed"):
        controls_beside(range(11), avoid=(), count=3, **corpus)


def test_a_memorised_example_stands_out_and_a_stranger_does_not(tmp_path: Path) -> None:
    """A query that is a training example: leaving it out raises the loss. End to end, resumed without training."""
    corpus = read_corpus(shared_corpus(16)).rows
    queries = [
        Query(key=row.example_id, turns=row.turns, completion=row.completion)
        for row in (corpus[5], corpus[9])
    ]
    avoid = frozenset({9})
    citations = [CitationToMeasure(0, (5,), avoid), CitationToMeasure(1, (12,), avoid)]
    arguments: dict[str, Any] = {
        "queries": queries,
        "citations": citations,
        "recipe": Recipe(learning_rate=3e-3, batch_size=8, epochs=4, max_tokens=48),
        "folder": tmp_path,
        "options": RetrainingOptions(keep_models=False),
    }
    steps: list[tuple[int, int]] = []
    found = measure_citations(
        micro_language(), corpus, **arguments, progress=lambda done, total: steps.append((done, total))
    )
    memorised, stranger = found
    assert memorised.effect_nats > 0
    assert memorised.stands_out
    assert memorised.effect_nats > abs(stranger.effect_nats)
    assert memorised.low_nats <= memorised.effect_nats <= memorised.high_nats
    assert memorised.retrainings == 15
    assert memorised.seconds > 0
    assert all({5, 9, 12}.isdisjoint(group) for group in memorised.control_groups)
    assert steps[-1][0] == steps[-1][1]
    assert measure_citations(micro_language(), corpus, **arguments) == found


def test_too_few_seeds_controls_and_unknown_citations_are_refused(tmp_path: Path) -> None:
    """The text says how many are needed."""
    with pytest.raises(ConfigurationError, match="at least 3 different"):
        RetrainingOptions(seeds=(0, 1, 1))
    with pytest.raises(ConfigurationError, match="2 controls"):
        RetrainingOptions(controls=2)
    corpus = read_corpus(shared_corpus(24)).rows
    for citation in (CitationToMeasure(0, (1,)), CitationToMeasure(0, ())):
        queries = [] if citation.group else [Query(key="q", turns=(), completion="text")]
        with pytest.raises(ConfigurationError, match="citation of query 0"):
            measure_citations(
                micro_language(),
                corpus,
                queries=queries,
                citations=[citation],
                recipe=Recipe(),
                folder=tmp_path,
            )


def test_one_gradient_step_follows_the_gradient_product_and_leaves_no_trace() -> None:
    """Descent and ascent agree to first order, the example itself gains, and the weights come back bit for bit."""
    language = micro_language()
    example, other = random_row(5, 6), random_row(4, 5, seed=9)
    before = [weight.clone() for weight in language.model.parameters()]
    down = one_step(language, [example, other], example)
    up = unlearn(language, [example, other], example)
    assert down[0] > 0
    np.testing.assert_allclose(down, up, rtol=0.1, atol=2e-4)
    half = one_step(language, [example], example, step=5e-3)
    assert half[0] == pytest.approx(down[0] / 2, rel=0.1)
    assert all(map(np.array_equal, before, language.model.parameters()))
    assert not any(weight.requires_grad for weight in language.model.parameters())
    assert np.isfinite(mean_losses(language.model, [other])).all()
    with pytest.raises(ConfigurationError, match="step must be > 0"):
        one_step(language, [other], example, step=0.0)
