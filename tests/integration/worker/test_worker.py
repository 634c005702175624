"""The whole way with a real worker: hints, claims, citations; what dies in between changes nothing in the end."""

import base64
import json
import pickle
import signal
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from db.counters import read_totals
from db.models import Audit, Citation, FlaggedText, ProcessSign
from db.queues.audit_queue import AuditQueue
from db.queues.queue import Failure
from db.reading import reader
from db.storing.intake import accept
from tests.integration.worker.conftest import TEXTS, examples, register_bundle
from tests.integration.worker.processes import kill_group_at_work, running, sweeping
from tests.overlap_engine import OverlapAttributor
from tests.waiting import wait_until
from wherefrom.records import AuditState, FlaggedRecord, Query

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("bundle_id")]

STREAM, QUEUE = "t:wherefrom:flagged", "t:attribute"


def completion(number):
    """Different outputs with different citations."""
    return f"{TEXTS[number % len(TEXTS)]} word{number}"


def flag(parts, count):
    """XADD outputs and take them in."""
    with parts.client.pipeline() as pipeline:
        for number in range(count):
            record = {"prompt": "p", "completion": completion(number), "model": "tiny@1"}
            pipeline.xadd(STREAM, {"record": json.dumps(record)})
        pipeline.execute()
    intake = parts.intake()
    while parts.client.xlen(STREAM):
        intake.step()


def done(parts):
    """How many audits are done."""
    return parts.count(AuditState.DONE)


def at_work(parts):
    """How many audits are claimed at this moment."""
    return parts.count(AuditState.RUNNING)


def assert_cited_once(parts, count):
    """Every audit is done, with exactly the citations that the engine gives, each once."""
    assert done(parts) == count
    engine = OverlapAttributor("overlap-test", examples())
    with parts.database.reading() as session:
        rows = session.execute(
            select(Citation.audit_id, Citation.rank, Citation.score).order_by(
                Citation.audit_id, Citation.rank
            )
        )
        stored: dict[int, list[tuple[int, float]]] = {}
        for audit_id, rank, score in rows:
            stored.setdefault(audit_id, []).append((rank, round(score, 9)))
        outputs = select(Audit.id, FlaggedText.completion).join(
            FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id
        )
        completions = {row.id: row.completion for row in session.execute(outputs)}
    assert set(stored) == set(completions)
    for audit_id, completion in completions.items():
        record = FlaggedRecord(prompt="p", completion=completion, model="m")
        prepared = engine.prepare(Query.from_record("q", record), max_tokens=1024, over_long="truncate")
        [expected] = engine.attribute([prepared], top_k=10, opponents=3)
        assert stored[audit_id] == [(one.rank, round(one.score, 9)) for one in expected.citations]


def roles_alive(parts):
    """What the processes do that give signs of life."""
    with parts.database.reading() as session:
        return set(session.scalars(select(ProcessSign.role)))


#: On SQLite the short storm (`tests/integration/test_chaos.py`) kills and empties more than these do.
ON_POSTGRES = pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)


@pytest.mark.slow
@ON_POSTGRES
def test_kill_storm(parts, tmp_path):
    """500 audits, the worker's process group killed in the middle of a batch: 500 done, each with its citations once."""
    flag(parts, 500)
    log = tmp_path / "worker.log"
    with sweeping(parts):
        with running(parts.settings, "run", log=log) as worker:
            wait_until(lambda: done(parts) >= 100, 60, "the worker to work", 0.005)
            kill_group_at_work(worker, lambda: at_work(parts))
        assert done(parts) < 500
        with running(parts.settings, "run", log=log):
            wait_until(lambda: done(parts) == 500, 60, "all audits")
    assert_cited_once(parts, 500)
    count = log.read_text().count(f"other_engine                   engine={parts.settings.engine}")
    assert count == 4, "two workers and a pool process of each say that the engine is not wherefrom's own"
    with parts.database.reading() as session:
        again = session.scalar(select(func.count()).where(Audit.attempt > 1))
    assert again, "the kill hit no claimed batch, so it proved nothing"


@pytest.mark.slow
@ON_POSTGRES
def test_flushall_after_acceptance_loses_nothing(parts, tmp_path):
    """Accepted is in SQL: with the whole of Redis gone in the middle, every audit is done."""
    flag(parts, 500)
    with sweeping(parts), running(parts.settings, "run", log=tmp_path / "worker.log"):
        wait_until(lambda: done(parts) >= 20, 60, "the worker to work", 0.01)
        parts.client.flushall()
        wait_until(lambda: done(parts) == 500, 120, "all audits")
    assert_cited_once(parts, 500)


@pytest.mark.slow
def test_forged_and_doubled_messages_do_no_harm(parts, tmp_path, server):
    """A pickle is refused unread, rubbish is dropped, doubled hints find nothing; Redis may go and come back."""
    canary = tmp_path / "canary"
    parts.celery.send_task("wherefrom.attribute", kwargs={"bundle_id": "x"}, queue="attribute")
    parts.celery.send_task("wherefrom.attribute", args=[1, 2], kwargs={"bundle_id": 10**6}, queue="attribute")
    parts.celery.send_task("os.system", args=["true"], queue="attribute")
    parts.client.lpush(QUEUE, forged_pickle(parts, canary), b"no message", b"{}", b"[1]", b"\xff")
    for forged in (b"9" * 100_000, b'"' + b"x" * 1_000_000 + b'"', str(2**70).encode()):
        parts.client.lpush(QUEUE, forged_body(parts, b'[[], {"bundle_id": ' + forged + b"}, {}]"))
    log = tmp_path / "worker.log"
    with sweeping(parts), running(parts.settings, "run", log=log) as worker:
        flag(parts, 20)
        for _ in range(30):
            parts.hints().send(1)
        wait_until(lambda: done(parts) == 20, 60, "all audits")
        wait_until(lambda: parts.queued_hints() == 0, 30, "the queue to empty")
        assert roles_alive(parts) == {"attribute"}
        server.stop()
        server.start()
        flag(parts, 20)
        wait_until(lambda: done(parts) == 40, 60, "audits after Redis came back")
        worker.send_signal(signal.SIGTERM)
        # A connection that Redis dropped is given up after its socket timeout of 30 s, and only then the worker ends.
        assert worker.wait(75) == 0
    assert roles_alive(parts) == set(), "a process that ends in order takes its sign of life away"
    totals = read_totals(parts.database)
    assert totals["wherefrom_audits_finished_total", '{"state": "done"}'] == 40, (
        "the pool process stored what it counted"
    )
    assert not canary.exists()
    assert max(len(line) for line in log.read_text().splitlines()) < 10_000
    assert "Refusing to deserialize" in log.read_text() or "ContentDisallowed" in log.read_text()
    assert_cited_once(parts, 40)


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return (open, (str(self._path), "w"))


def forged_pickle(parts, canary):
    """A well-formed message with a pickle in it, as an attacker who reaches Redis would send."""
    parts.celery.send_task("wherefrom.attribute", kwargs={"bundle_id": 1}, queue="attribute")
    message = json.loads(parts.client.lpop(QUEUE))
    message["body"] = base64.b64encode(pickle.dumps(((Exploit(canary),), {}, {}))).decode()
    message["content-type"] = "application/x-python-serialize"
    message["content-encoding"] = "binary"
    return json.dumps(message)


def forged_body(parts, body):
    """A well-formed message around a body of the test's own."""
    parts.celery.send_task("wherefrom.attribute", kwargs={"bundle_id": 1}, queue="attribute")
    message = json.loads(parts.client.lpop(QUEUE))
    message["body"] = base64.b64encode(body).decode()
    return json.dumps(message)


def test_the_sweeper_fills_an_empty_queue_and_keeps_it_short(parts, database):
    """Hints for pending work, never more than twice the processes."""
    flag(parts, 50)
    parts.client.flushall()
    sweeper = parts.sweeper()
    for _ in range(3):
        sweeper.step()
    assert parts.queued_hints() == 2 * parts.settings.worker_processes


def test_the_sweeper_takes_back_expired_leases_until_attempts_are_spent(parts, database, bundle_id):
    """A dead worker's audits are pending again, and dead when it happens too often."""
    flag(parts, 2)
    settings = parts.settings.model_copy(update={"max_attempts": 2})
    sweeper = parts.sweeper(settings)
    for expected in ("pending", "dead"):
        claimed = AuditQueue(database).claim(bundle_id, limit=5, owner="dying", lease_s=60)
        assert claimed is not None
        assert all(AuditQueue(database).begin(one.lease) for one in claimed.audits)
        with database.writing() as session:
            session.execute(
                text(
                    "UPDATE audit SET lease_until = '2020-01-01 00:00:00.000000+00:00'"
                    if database.dialect == "postgresql"
                    else "UPDATE audit SET lease_until = '2020-01-01 00:00:00.000000'"
                )
            )
        sweeper.step()
        assert reader.queue_health(database).states[AuditState(expected)] == 2
    assert parts.metrics.registry.get_sample_value("wherefrom_leases_expired_total") == 4


def test_the_sweeper_mends_times_of_a_clock_that_was_set_back(parts, bundle_id):
    """Leases and waits until tomorrow: a new sweeper cuts both; a running one cuts leases, and waits when it sees the clock go back."""
    queue, sweeper = AuditQueue(parts.database), parts.sweeper()

    def claim_until_tomorrow():
        flag(parts, 2)
        claim = queue.claim(bundle_id, limit=2, owner="w", lease_s=86_400)
        assert claim is not None
        held, failed = claim.audits
        queue.fail(failed.lease, Failure("x", "y", retry_in_s=86_400), max_attempts=5)
        return held.audit_id, failed.audit_id

    def seconds_left(audit_id):
        with parts.database.reading() as session:
            row = session.get_one(Audit, audit_id)
            return ((row.lease_until or row.next_attempt_at) - queue.now()).total_seconds()

    for is_back in (True, False, True):
        if is_back and sweeper._last_round_at is not None:
            sweeper._last_round_at += timedelta(hours=1)
        held, waits = claim_until_tomorrow()
        sweeper.step()
        assert seconds_left(held) <= parts.settings.lease_seconds
        assert (seconds_left(waits) <= parts.settings.backoff_cap_seconds) is is_back


def test_a_bad_bundle_stops_no_other(parts, tmp_path):
    """A bundle whose folder is gone, active from the start: the worker starts, answers for the other model, and the audits of the bad one say why they wait."""
    bad = register_bundle(parts.database, name="gone", model="other@1")
    (waiting,) = accept(
        parts.database,
        [FlaggedRecord(prompt="p", completion="c", model="other@1")],
        producer="p",
        channel="http",
    )
    flag(parts, 6)
    assert waiting.audit_id is not None
    audit_id = waiting.audit_id
    with sweeping(parts), running(parts.settings, "run", log=tmp_path / "log"):
        wait_until(lambda: done(parts) == 6, timeout_s=60)
        wait_until(lambda: reader.get_audit(parts.database, audit_id).audit.code is not None, timeout_s=30)
    audit = reader.get_audit(parts.database, audit_id).audit
    assert (audit.state, audit.code, audit.attempt) == (AuditState.PENDING, "unknown_bundle", 0)
    assert AuditQueue(parts.database).pending_counts() == {bad: 1}
