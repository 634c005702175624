"""What is stuck is told in words, with what to do."""

import inspect
from datetime import UTC, datetime

import pytest

from wherefrom import errors
from wherefrom.records import (
    AuditState,
    MeasurementState,
    Minute,
    QueueHealth,
    Stuck,
    StuckKind,
    StuckWork,
    Today,
    Waiting,
    WorkerSign,
)
from wherefrom.remedies import REMEDIES, WAITS, in_words, remedy

NOW = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def today(
    *roles: str, pending: int = 0, expired: int = 0, loaded: int = 1, stuck: tuple[Stuck, ...] = ()
) -> Today:
    """A day with these living processes."""
    states = dict.fromkeys(AuditState, 0) | {AuditState.PENDING: pending}
    return Today(
        now=NOW,
        queue=QueueHealth(states=states, oldest_pending_seconds=None, expired_leases=expired),
        minutes=tuple(Minute(start=NOW, done=minute % 2, dead=1) for minute in range(60)),
        partial=False,
        workers=tuple(
            WorkerSign(
                name=role, role=role.removeprefix("silent "), host="h", pid=1, bundles=(), models=(),
                started_at=NOW, seen_at=NOW, alive=not role.startswith("silent"),
            )
            for role in roles
        ),
        waiting=(Waiting(bundle="b", model="m", audits=pending, workers=loaded),) if pending else (),
        stuck=stuck,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (today("attribute", "sweep"), []),
        (today(), []),
        (today("attribute", "sweep", pending=3), []),
        (today("sweep", pending=3), ["no worker"]),
        (today("silent attribute", "sweep", pending=3), ["no worker"]),
        (today("attribute", "sweep", pending=3, loaded=0), ["no worker has loaded: b"]),
        (today("attribute", "sweep", expired=2), ["2 leases ran out"]),
        (today("attribute", "silent sweep", pending=1), ["No sweeper"]),
    ],
)
def test_what_keeps_the_work_from_going_on(found: Today, told: list[str]) -> None:
    """Each is said once, with what to do; a process that is silent does not count."""
    alerts = in_words(found, {}).alerts
    assert len(alerts) == len(told)
    for alert, text in zip(alerts, told, strict=True):
        assert text in alert.text
        assert alert.advice


def test_each_code_has_a_meaning_and_a_remedy() -> None:
    """Those that stand with audits; an unknown one has the usual advice of its state."""
    one = Stuck(state=AuditState.DEAD, code="out_of_memory", audits=3, more=False, retry=True)
    other = Stuck(state=AuditState.PENDING, code="x", audits=1, more=False, retry=False)
    first, second = in_words(today(stuck=(one, other)), {"out_of_memory": "It did not fit."}).stuck
    assert (first.meaning, first.advice) == ("It did not fit.", REMEDIES["out_of_memory"])
    assert second.advice == WAITS
    known = {
        kind.code
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, errors.WherefromError)
    } | errors.STORED_CODES.keys()
    assert set(REMEDIES) <= known
    assert remedy(AuditState.PENDING, errors.IndexUnavailable.code) != WAITS
    assert errors.STORED_CODES.keys() - REMEDIES.keys() == {errors.NO_SUPPORT, errors.HANDED_BACK}, (
        "neither is stuck: an abstained audit, and one that a worker put back"
    )
    for state in (AuditState.DEAD, AuditState.REJECTED):
        assert remedy(state, None)


@pytest.mark.parametrize("kind", list(StuckKind))
def test_other_work_has_words_too(kind: StuckKind) -> None:
    """What died and what waits: each says what to do; what has no button does not say "try again"."""
    state = MeasurementState.PENDING if kind is StuckKind.COMPARISON else MeasurementState.DEAD
    codes = ("out_of_memory", None) if state is MeasurementState.DEAD else (None,)
    work = [StuckWork(kind=kind, state=state, code=one, number=1, more=False, leads_to=None) for one in codes]
    if kind not in {StuckKind.COMPARISON, StuckKind.NOTICE}:
        work.append(work[0].model_copy(update={"state": MeasurementState.PENDING, "code": None}))
    found = in_words(today().model_copy(update={"stuck_work": tuple(work)}), {"out_of_memory": "Too large."})
    assert all(one.meaning and one.advice.endswith(".") for one in found.stuck_work)
    assert not any("try them again" in one.advice for one in found.stuck_work)


@pytest.mark.parametrize("code", sorted(REMEDIES))
def test_advice_of_other_work_is_whole(code: str) -> None:
    """A remedy of audits does not end as one of audits; where nothing can be done, nothing is to be asked for again."""
    dead = StuckWork(
        kind=StuckKind.MEASUREMENT,
        state=MeasurementState.DEAD,
        code=code,
        number=1,
        more=False,
        leads_to=1,
    )
    [found] = in_words(today().model_copy(update={"stuck_work": (dead,)}), {}).stuck_work
    assert not any(words in found.advice for words in ("try them again", "They then run"))
    assert found.advice.endswith("ask for it again.") == (code != errors.OUTPUT_ERASED)


def test_rates_are_of_whole_minutes() -> None:
    """The last minute is not over, so it counts for nothing."""
    found = today()
    assert found.per_minute("dead") == 1
    assert found.per_minute("done", "dead") == 1.5
    assert found.abstained_share == 0
