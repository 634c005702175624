"""Whose audits are claimed first: urgent ones, and bundles in turn, with nobody left behind."""

from itertools import count

from db.queues.audit_queue import FAIR_EVERY, AuditQueue
from db.session import Database
from tests.integration.db.builders import OWNER, accept, record, register
from wherefrom.records import Severity


def test_urgent_audits_overtake_and_starve_nobody(db: Database, bundle_id: int) -> None:
    """More urgent outputs come than are claimed, for ever: they go first, and of every eight claims one is for the others, the classes in turn, the oldest first."""
    queue, numbers = AuditQueue(db), count()
    bulk = {
        severity: [
            one.audit_id for one in accept(db, *(record(next(numbers), severity=severity) for _ in range(6)))
        ]
        for severity in (Severity.LOW, Severity.MEDIUM, Severity.HIGH)
    }
    claimed: list[list[tuple[int, Severity]]] = []
    for _ in range(3 * FAIR_EVERY):
        accept(db, *(record(next(numbers), severity=Severity.CRITICAL) for _ in range(5)))
        taken = queue.claim(bundle_id, limit=4, owner=OWNER, lease_s=60)
        assert taken is not None
        claimed.append([(one.audit_id, one.record.severity) for one in taken.audits])
    turns = claimed[FAIR_EVERY - 1 :: FAIR_EVERY]
    assert [{severity for _, severity in turn} for turn in turns] == [
        {Severity.LOW},
        {Severity.MEDIUM},
        {Severity.HIGH},
    ]
    for turn, waited in zip(turns, bulk.values(), strict=True):
        assert [audit_id for audit_id, _ in turn] == waited[:4]
    usual = [one for number, one in enumerate(claimed, start=1) if number % FAIR_EVERY]
    assert {severity for one in usual for _, severity in one} == {Severity.CRITICAL}


def test_bundles_that_take_turns_each_have_their_fair_claims(own: Database) -> None:
    """With one count for all, every eighth claim would be of the same bundle, and the other's low ones would wait for ever."""
    queue, numbers = AuditQueue(own), count()
    bundles = {model: register(own, name=f"bundle-{model}", model=model) for model in ("a", "b")}
    for model in bundles:
        accept(own, record(next(numbers), model=model, severity=Severity.LOW))
    low: dict[str, int] = {}
    for number in range(1, FAIR_EVERY + 1):
        for model, bundle_id in bundles.items():
            accept(own, *(record(next(numbers), model=model, severity=Severity.CRITICAL) for _ in range(2)))
            taken = queue.claim(bundle_id, limit=1, owner=OWNER, lease_s=60)
            assert taken is not None
            if taken.audits[0].record.severity is Severity.LOW:
                low[model] = number
    assert low == dict.fromkeys(bundles, FAIR_EVERY)


def test_a_turn_that_nobody_waits_for_is_a_usual_claim(db: Database, bundle_id: int) -> None:
    """Without less urgent audits every claim takes what is there."""
    queue = AuditQueue(db)
    accept(db, *(record(number, severity=Severity.CRITICAL) for number in range(2 * FAIR_EVERY)))
    taken = [queue.claim(bundle_id, limit=1, owner=OWNER, lease_s=60) for _ in range(2 * FAIR_EVERY)]
    assert all(one is not None and len(one.audits) == 1 for one in taken)
