"""How findings are judged: what counts as pure, what as whole, and that the least similarity is chosen on behaviours that are not reported."""

import numpy as np
import pytest

from benchmarks import findings
from benchmarks.findings import Labelled
from db.grouping.finding_work import AlikeOutput


def labelled(number: int, behaviour: str | None) -> Labelled:
    """An output that cites nothing."""
    return Labelled(AlikeOutput(number, b"\x01"), behaviour)


def test_figures_of_a_grouping() -> None:
    """Two behaviours in three findings, one of them mixed, one output in none, one beside them that shows nothing."""
    behaviours = ["a", "a", "a", "b", "b", "b", None]
    some = [labelled(number, behaviour) for number, behaviour in enumerate(behaviours)]
    found = findings._judged(some, {0: 1, 1: 1, 2: 2, 3: 2, 4: 2, 6: 1}, 2)
    assert found["findings"] == 2
    assert found["covered"] == pytest.approx(5 / 6)
    assert found["purity"] == pytest.approx(4 / 5)
    assert found["strict_purity"] == pytest.approx(4 / 6)
    assert found["inverse_purity"] == pytest.approx(4 / 5)
    assert 0 < found["completeness"] < 1


def test_the_least_similarity_is_chosen_on_the_other_half() -> None:
    """No behaviour is on both sides; kinds that lie apart are found whole."""
    random = np.random.default_rng(0)
    some = []
    for number in range(40):
        direction = random.normal(0, 6, 8)
        direction[number % 4] += 100
        vector = np.rint(direction).clip(-127, 127).astype(np.int8).tobytes()
        some.append(Labelled(AlikeOutput(number, vector, None, {number % 4: 1}), "abcd"[number % 4]))
    found = findings.purity_of(some)
    assert sorted(found["chosen_on"] + found["reported_on"]) == list("abcd")
    assert (
        found["reported"]["purity"]
        == found["reported"]["inverse_purity"]
        == found["reported"]["covered"]
        == 1
    )
    assert len(findings.table({"time": dict.fromkeys(("outputs", "kinds", "findings", "seconds", "calls", "purity", "covered"), 1), "purity": found})) > 10  # fmt: skip
