"""Who has had its chances, and who only met a database that takes nobody."""

from worker.flagged_stream.poison_suspects import CHANCES, RETRY_CAP_S, PoisonSuspects


def test_an_entry_that_fails_while_others_are_stored_has_its_chances() -> None:
    """After so many counted failures, and not before."""
    suspects = PoisonSuspects()
    answers = []
    for _ in range(CHANCES):
        answers.append(suspects.failed(b"1-0"))
        suspects.committed([b"2-0"])
    assert answers == [False] * (CHANCES - 1) + [True]


def test_where_nobody_is_stored_nobody_is_condemned() -> None:
    """However often it fails; it is the first of its failures only that counts."""
    suspects = PoisonSuspects()
    assert not any(suspects.failed(b"1-0") for _ in range(10 * CHANCES))


def test_an_entry_that_is_stored_after_all_is_cleared() -> None:
    """Later failures under the same id start anew."""
    suspects = PoisonSuspects()
    for _ in range(CHANCES - 1):
        suspects.failed(b"1-0")
        suspects.committed([b"2-0"])
    suspects.committed([b"1-0"])
    assert b"1-0" not in suspects
    assert not suspects.failed(b"1-0")


def test_waits_grow_and_end_at_a_cap() -> None:
    """It is due after its wait, those that wait longest first, never more than asked for."""
    now = [0.0]
    suspects = PoisonSuspects(clock=lambda: now[0])
    suspects.failed(b"1-0")
    now[0] = 0.01
    suspects.failed(b"2-0")
    assert suspects.due(9) == []
    now[0] = 1
    assert set(suspects.due(9)) == {b"1-0", b"2-0"}
    assert len(suspects.due(1)) == 1
    for _ in range(50):
        suspects.failed(b"1-0")
    now[0] += RETRY_CAP_S
    assert b"1-0" in suspects.due(9)
    suspects.forget(b"1-0")
    assert b"1-0" not in suspects.due(9)
