"""The books of a storm find what they are there to find: each case is one fault of the service, made up by hand."""

from collections.abc import Mapping
from typing import Any

import pytest

from benchmarks.chaos.ledger import ALWAYS, NO_AOF, NO_CAUSE, Cited, Limits, Row, Tally, broken, judge, spread
from benchmarks.chaos.producers import Journal
from wherefrom.records import AuditState, sha256_of_json

CITED: tuple[Cited, ...] = ((1, "row-1", 0.5), (2, "row-2", 0.25), (-1, "row-3", -0.5))
IN_TIME = Limits(1.0, 1.0, 1.0)
MOST = Limits(13.0, 15.0, 30.0)


def answer(attempt: int = 1, cited: tuple[Cited, ...] = CITED) -> Mapping[str, Any]:
    """What the trail says of an answer."""
    digest = sha256_of_json([list(one) for one in cited])
    return {"attempt": attempt, "citations": len(cited), "citations_sha256": digest}


def done(key: str = "http-1-0", **changes: Any) -> Row:
    """An audit that was answered once and whole."""
    given: dict[str, Any] = {"state": AuditState.DONE, "attempt": 1, "cited": CITED, "answers": (answer(),)}
    return Row(key, **(given | changes))


def told(tally: Tally) -> set[str]:
    """First words of the invariants that do not hold."""
    return {one.split()[0] for one in broken(tally, IN_TIME, MOST)}


def test_a_storm_without_loss_breaks_nothing() -> None:
    """Each accepted output has one whole answer; a poison is dead; an abstained one keeps its citations."""
    rows = [done("a"), done("b", state=AuditState.ABSTAINED), Row("p", AuditState.DEAD, 3)]
    tally = judge({"a", "p"}, {"b": ALWAYS}, rows, poisons={"p"})
    assert (tally.accepted, tally.done, tally.abstained, tally.dead) == (3, 1, 1, 1)
    assert not broken(tally, IN_TIME, MOST)


BROKEN: list[tuple[str, list[Row]]] = [
    ("lost", []),
    ("lost", [Row("a", AuditState.PENDING, 1)]),
    ("lost", [Row("a", AuditState.RUNNING, 1)]),
    ("innocents_dead", [Row("a", AuditState.DEAD, 3)]),
    ("innocents_dead", [Row("a", AuditState.REJECTED, 1)]),
    ("duplicate_citations", [done("a"), done("a")]),
    ("duplicate_citations", [done("a", answers=(answer(), answer()))]),
    ("duplicate_citations", [done("a", cited=(*CITED, CITED[0]))]),
    ("half_written", [done("a", cited=CITED[:2])]),
    ("half_written", [done("a", cited=())]),
    ("half_written", [done("a", answers=())]),
    ("half_written", [Row("a", AuditState.RUNNING, 1, CITED)]),
    ("stale_answers", [done("a", attempt=2)]),
]


@pytest.mark.parametrize(("name", "rows"), BROKEN)
def test_what_went_wrong_is_counted_and_named(name: str, rows: list[Row]) -> None:
    """Nothing stored, still open, dead without a fault, twice, by halves, by a worker that had lost its lease."""
    tally = judge({"a"}, {}, rows, poisons=())
    assert getattr(tally, name) > 0
    assert name in told(tally)


def test_entries_that_redis_lost_are_counted_apart() -> None:
    """They were never accepted; only where Redis had promised to keep them is that a fault."""
    tally = judge((), {"a": NO_AOF, "b": NO_AOF, "c": ALWAYS}, [done("a")], poisons=())
    assert (tally.accepted, tally.lost, tally.stream_lost) == (1, 0, 2)
    assert tally.stream_lost_by == {NO_AOF: 1, ALWAYS: 1}
    assert told(tally) == {"stream_lost"}
    assert broken(judge((), {"a": NO_CAUSE}, [], poisons=()), IN_TIME, MOST)


@pytest.mark.parametrize("late", [Limits(13.1, 1, 1), Limits(1, 15.1, 1), Limits(1, 1, 30.1)])
def test_late_is_broken_too(late: Limits) -> None:
    """Claimed again, canary, and FLUSHALL, each by its own limit."""
    tally = judge({"a"}, {}, [done("a")], poisons=())
    assert len(broken(tally, late, MOST)) == 1
    assert not broken(tally, MOST, MOST)


def test_spread_of_nothing_is_nothing() -> None:
    """A storm without a killed worker has no times."""
    assert spread([]) == {"median": None, "worst": None}
    assert spread([1.0, 2.0, 9.0]) == {"median": 2.0, "worst": 9.0}


def test_a_journal_survives_a_line_that_was_cut_off(tmp_path) -> None:
    """A producer was killed while it wrote: what stands whole counts, and it goes on behind it."""
    journal = Journal(tmp_path / "journal")
    assert journal.read() == {}
    journal.add([0, 1], 17.25)
    with journal.file.open("a") as file:
        file.write("2 17")
    assert journal.read() == {0: 17.25, 1: 17.25}
