"""A list's score is the sum of its rows' own, exactly; nats only with a scale; random lists are the unit."""

import numpy as np
import pytest

from tests.tiny import opened, tiny_queries
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.calibration.fitted import EffectCurve
from wherefrom.attribution.corpus import parse_row
from wherefrom.attribution.interface import ListAttributor
from wherefrom.attribution.kernel import cosines
from wherefrom.attribution.offline import query_of
from wherefrom.attribution.what_if import (
    against,
    checked_rows,
    random_sums,
    sample_beside,
    score_list,
)
from wherefrom.errors import NotFound
from wherefrom.records.what_if import RANDOM_LISTS

CURVE = EffectCurve("bank", 0.5, np.array([-1.0, 0.0, 1.0]), np.array([-0.2, 0.0, 0.4]))


@pytest.fixture(scope="module")
def attributor() -> LanguageAttributor:
    """The tiny model over its corpus."""
    return LanguageAttributor(opened("forward"))


@pytest.fixture(scope="module")
def prepared(attributor: LanguageAttributor) -> list:
    """Three outputs as tokens."""
    asked = [query_of(parse_row(row, default_id=f"q{place}")) for place, row in enumerate(tiny_queries(3))]
    return [attributor.prepare(one, max_tokens=512, over_long="truncate") for one in asked]


def test_a_list_adds_its_rows_whatever_stands_beside_the_output(
    attributor: LanguageAttributor, prepared: list
) -> None:
    """Equal to one row after the other; doubles and order do not matter; answers stand in order."""
    rows = [7, 3, 3, 11]
    assert isinstance(attributor, ListAttributor)  # a worker asks no engine that is none
    together = attributor.score_list(prepared, rows)
    assert [one.key for one in together] == [one.asked.key for one in prepared]
    for place, one in enumerate(prepared):
        parts = [attributor.score_list([one], [row])[0].score for row in (3, 7, 11)]
        assert together[place].score == pytest.approx(sum(parts), rel=1e-4, abs=1e-5)
    assert all(one.effect_nats is None and one.chance is not None and 0 < one.chance <= 1 for one in together)


def test_the_row_that_moves_an_output_most_stands_out(attributor: LanguageAttributor, prepared: list) -> None:
    """The best row of all by the exact kernel is above random rows, the worst below."""
    bundle = opened("forward")
    query = attributor.signals(prepared[:1])[0]
    everything = np.arange(len(bundle.store))
    influence = cosines(
        bundle.store.scores(query.signals.factors, everything)[0].numpy(),
        float(query.signals.norm),
        bundle.store.norms,
    )
    net = bundle.net_magnitude(influence, query.signals.projected, everything)
    best, worst = (attributor.score_list(prepared[:1], [int(row)])[0] for row in (net.argmax(), net.argmin()))
    assert best.z is not None
    assert worst.z is not None
    assert best.z > 1
    assert worst.z < 0
    assert worst.chance == pytest.approx(1.0, abs=0.02)
    assert best.chance == pytest.approx(1 / (RANDOM_LISTS + 1), abs=0.02)


def test_nats_need_a_scale_and_count_from_random_lists(
    attributor: LanguageAttributor, prepared: list
) -> None:
    """With a fitted scale there are nats with an interval around them, and its name; not for the difference to another answer."""
    bundle, query = opened("forward"), attributor.signals(prepared[:1])[0]
    found = score_list(bundle, query, checked_rows([1, 2], len(bundle.store)), curve=CURVE)
    assert found.basis == "bank, alpha 0.5"
    assert found.effect_nats is not None
    assert found.low_nats is not None
    assert found.high_nats is not None
    assert found.low_nats < found.effect_nats < found.high_nats
    flat = EffectCurve("bank", 0.5, np.array([-1.0, 1.0]), np.array([0.3, 0.3]))
    same = score_list(bundle, query, checked_rows([1, 2], len(bundle.store)), curve=flat)
    assert same.effect_nats == pytest.approx(0.0, abs=1e-9)  # what any row does is no effect of this list


def test_rows_that_the_corpus_does_not_have_are_refused() -> None:
    """And a corpus too small has no random lists."""
    assert checked_rows([5, 1, 5], 10).tolist() == [1, 5]
    for rows in ([], [10], [-1]):
        with pytest.raises(NotFound):
            checked_rows(rows, 10)
    assert len(sample_beside(checked_rows([1], 10), 10)) == 0
    assert 1 not in sample_beside(checked_rows([1], 1000), 1000)
    assert against(1.0, random_sums(np.zeros(0), 3)) == (None, None)
