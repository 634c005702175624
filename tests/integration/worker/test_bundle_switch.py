"""A model gets a new bundle while workers work on the old one, and the old one back: no output waits, and each is answered by one stated bundle."""

from pathlib import Path

import pytest
from sqlalchemy import func, select

from db.bundles import routing
from db.models import Audit, Bundle, Citation
from db.queues.audit_queue import AuditQueue
from db.storing.intake import accept
from tests import overlap_engine
from tests.integration.worker.conftest import MODEL, TEXTS, Parts, register_bundle
from tests.integration.worker.processes import running, sweeping
from tests.waiting import wait_until
from wherefrom.records import AuditState, FlaggedRecord

pytestmark = [pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What moves an audit is tried on both databases (`tests/integration/db/test_routing.py`); here it is the worker."""
    return sqlite_url


def flag(parts: Parts, first: int, count: int) -> list[int]:
    """Accept outputs; their audits."""
    records = [
        FlaggedRecord(prompt="p", completion=f"{TEXTS[number % len(TEXTS)]} word{number}", model=MODEL)
        for number in range(first, first + count)
    ]
    found = accept(parts.database, records, producer="p", channel="cli")
    return [one.audit_id for one in found if one.audit_id is not None]


def answered_by(parts: Parts) -> dict[int, list[str]]:
    """By audit that is done: the bundle that it names."""
    query = select(Audit.id, Bundle.name).join(Bundle, Bundle.id == Audit.bundle_id)
    found: dict[int, list[str]] = {}
    with parts.database.reading() as session:
        for audit_id, name in session.execute(query.where(Audit.state == AuditState.DONE)):
            found.setdefault(audit_id, []).append(name)
    return found


def running_now(parts: Parts) -> set[int]:
    """Audits that a worker holds."""
    with parts.database.reading() as session:
        return set(session.scalars(select(Audit.id).where(Audit.state == AuditState.RUNNING)))


def test_a_new_bundle_takes_over_and_the_old_one_comes_back(parts: Parts, tmp_path: Path) -> None:
    """What is held is finished under the old bundle, what waits moves to the new one, and so do outputs that come now; then the way back. Nothing is answered twice."""
    settings = parts.settings.model_copy(update={"engine": overlap_engine.SLOW_ENGINE})
    old = register_bundle(parts.database, name="bundle-a", model=MODEL, settings=settings)
    new = register_bundle(parts.database, name="bundle-b", model=MODEL, settings=settings, activate=False)
    before = flag(parts, 0, 24)
    with sweeping(parts), running(settings, "run", log=tmp_path / "worker.log"):
        wait_until(lambda: running_now(parts), 60, "the worker to hold a batch", 0.02)
        routing.activate(parts.database, new)
        held = {*running_now(parts), *answered_by(parts)}
        assert held
        assert len(held) < len(before), "nothing waited, so nothing could move"
        during = flag(parts, 24, 8)
        wait_until(lambda: parts.count(AuditState.DONE) == 32, 60, "all audits under one of the bundles")
        found = answered_by(parts)
        assert {audit_id for audit_id, names in found.items() if names == ["bundle-a"]} == held
        assert all(found[audit_id] == ["bundle-b"] for audit_id in (*(set(before) - held), *during))
        routing.activate(parts.database, old)
        back = flag(parts, 32, 4)
        wait_until(lambda: parts.count(AuditState.DONE) == 36, 60, "the audits after the way back")
    found = answered_by(parts)
    assert all(found[audit_id] == ["bundle-a"] for audit_id in back)
    assert sorted(found) == sorted([*before, *during, *back])
    assert AuditQueue(parts.database).pending_counts() == {}
    with parts.database.reading() as session:
        [retried] = session.scalars(select(func.count()).select_from(Audit).where(Audit.attempt > 1))
        cited = select(Citation.audit_id, func.count()).where(Citation.rank == 1).group_by(Citation.audit_id)
        firsts = dict(session.execute(cited).all())
    assert retried == 0, "a switch costs nobody an attempt"
    assert set(firsts) == set(found)
    assert set(firsts.values()) == {1}
