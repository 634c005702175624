"""The frame of the comparisons with other libraries: going on where a run stopped, what is missing, and the table on the deep bank."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.deep_bank import large
from benchmarks.deep_bank.material import read_bank_queries, read_plan, read_rows
from benchmarks.peers.deep.run import AT_HALF, HALF_WAY, OURS, PEERS, WORDS, measure, table_lines
from benchmarks.peers.keeping import Found, Peer, score_all
from benchmarks.peers.subject import Scored
from wherefrom.attribution.ranking_metrics import Matrix, lds


def scored(scores: Matrix) -> Scored:
    """Scores that cost something."""
    return Scored(scores, seconds_build=2.0, seconds_per_query=0.5, bytes_per_example=64.0, note="of a test")


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    """What is finished is read, and said to be of an earlier run; scores of other inputs are made anew; a method's folder is empty when it starts."""
    peers = {name: Peer("nowhere", name) for name in ("one", "two")}
    made: list[str] = []

    def score(name: str, scratch: Path) -> dict[str, Scored]:
        assert not list(scratch.iterdir())
        (scratch / "left over").touch()
        made.append(name)
        return {
            f"{name} a": scored(np.eye(2, 3, dtype=np.float32)),
            f"{name} b": scored(np.ones((2, 3), np.float32)),
        }

    first = score_all(peers, ["one"], tmp_path, inputs="x", score=score)
    again = score_all(peers, ["one", "two"], tmp_path, inputs="x", score=score)
    assert made == ["one", "two"]
    assert (first.resumed, again.resumed) == ([], ["one a", "one b"])
    assert list(again.rows) == ["one a", "one b", "two a", "two b"]
    assert vars(again.rows["one a"]) | {"scores": 0} == vars(first.rows["one a"]) | {"scores": 0}
    np.testing.assert_array_equal(again.rows["one b"].scores, first.rows["one b"].scores)
    score_all(peers, ["one"], tmp_path, inputs="y", score=score)
    assert made == ["one", "two", "one"]


def test_what_is_not_installed_is_named_with_its_line(tmp_path: Path) -> None:
    """The other methods are scored all the same."""
    peers = {
        "here": Peer("nowhere", "f"),
        "gone": Peer("nowhere", "f", ("no_such_package",), "pip install it"),
    }
    found = score_all(
        peers,
        list(peers),
        tmp_path,
        inputs="x",
        score=lambda name, _: {name: scored(np.ones((1, 2), np.float32))},
    )
    assert (list(found.rows), found.missing) == (["here"], {"gone": "pip install it"})


def test_what_was_scored_counts_without_the_library(tmp_path: Path) -> None:
    """Libraries that do not go together are scored one environment after the other."""
    there, gone = Peer("nowhere", "f"), Peer("nowhere", "f", ("no_such_package",), "pip install it")

    def score(name: str, _scratch: Path) -> dict[str, Scored]:
        return {name: scored(np.ones((1, 2), np.float32))}

    score_all({"one": there}, ["one"], tmp_path, inputs="x", score=score)
    found = score_all({"one": gone}, ["one"], tmp_path, inputs="x", score=score)
    assert (list(found.rows), found.resumed, found.missing) == (["one"], ["one"], {})


def test_rows_of_the_half_way_point_are_the_same_methods() -> None:
    """A peer that is read at our point is the peer, so each row has its partner as published."""
    half = {name for name in PEERS if name.endswith(HALF_WAY)}
    assert half
    assert all(PEERS[name] is PEERS[name.removesuffix(HALF_WAY)] for name in half)


@pytest.fixture(scope="module")
def found() -> Found:
    """Two rows that the table compares all others with, one that knows the truth better, and one made half-way."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(4, 50, 96)).astype(np.float32)
    names = (OURS, WORDS, "kronfluence EK-FAC", f"a method{AT_HALF}")
    return Found(
        {name: scored(one) for name, one in zip(names, noise, strict=True)},
        [WORDS],
        {"gone": "pip install it"},
    )


def test_the_table_of_the_deep_bank(found: Found) -> None:
    """Both parts of the bank, differences to our order and to BM25 on the same draws, and the best first."""
    result = measure(found)
    rows, bank = read_rows(), large.load()
    queries, plan = read_bank_queries(rows), read_plan()
    for part in ("report", "choose"):
        truth = bank.truth(part, plan.queries_of(part, len(queries)))
        for name, one in found.rows.items():
            own = result["parts"][part][name]
            assert own["lds"] == pytest.approx(
                lds(one.scores[list(truth.queries)], truth.kept, truth.losses).mean()
            )
        ours, words = (result["parts"][part][name] for name in (OURS, WORDS))
        assert words[f"above {OURS}"] == pytest.approx(words["lds"] - ours["lds"])
        low, high = words[f"above {OURS}, interval"]
        assert low < words[f"above {OURS}"] < high
        assert f"above {OURS}" not in ours
    lines = table_lines(result)
    shown = [line for line in lines if any(line.startswith(name) for name in found.rows)]
    assert shown[0].startswith(
        max(result["parts"]["report"], key=lambda name: result["parts"]["report"][name]["lds"])
    )
    assert any(line.startswith(f"{WORDS} *") for line in lines)
    assert lines[-1] == "not installed: gone: pip install it"
