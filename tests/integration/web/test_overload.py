"""More requests than the service takes, senders that go away, and a database that waits for a lock."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from anyio import to_thread
from sqlalchemy import text
from starlette.testclient import TestClient

from db import migrate, session
from db.session import Database
from db.storing import intake
from tests.integration.web.conftest import BASE_URL
from tests.waiting import wait_until
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

RECORD = {"model": "m", "prompt": "p", "completion": "c"}


def test_what_does_not_fit_gets_429_and_is_not_stored(make_app, monkeypatch):
    """One is being stored, one waits, the third is refused at once with the time to wait; the first two are stored."""
    app = make_app(max_concurrent_writes=1, max_waiting_requests=1, max_wait_seconds=30)
    stored, go_on = threading.Semaphore(0), threading.Event()
    accept = intake.accept

    def slowly(*arguments, **options):
        stored.release()
        assert go_on.wait(30)
        return accept(*arguments, **options)

    monkeypatch.setattr(intake, "accept", slowly)
    with TestClient(app, base_url=BASE_URL) as client, ThreadPoolExecutor(2) as pool:

        def flag(number):
            return client.post("/v1/flagged", json={**RECORD, "idempotency_key": f"k{number}"})

        first = pool.submit(flag, 1)
        assert stored.acquire(timeout=30)
        second = pool.submit(flag, 2)
        wait_until(lambda: app.state.services.lanes.store._waiting == 1, timeout_s=30)
        refused = flag(3)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "too_busy"
        assert client.get("/v1/audits").status_code == 200
        go_on.set()
        assert {one.result(30).status_code for one in (first, second)} == {202}
        assert len(client.get("/v1/audits").json()["items"]) == 2


def test_sqlite_gets_one_writer_at_a_time_and_postgresql_what_the_settings_say(make_app, database):
    """Further writers on SQLite would only sleep before its lock."""
    store = make_app(max_concurrent_writes=3).state.services.lanes.store
    assert store._free._value == (1 if database.dialect == "sqlite" else 3)


def test_storing_takes_one_turn_in_a_thread(make_app, monkeypatch):
    """The only one is the storing itself: each further turn competes with the event loop when it has least time."""
    turns = []
    run_sync = to_thread.run_sync

    async def counted(function, *arguments, **options):
        turns.append(function)
        return await run_sync(function, *arguments, **options)

    monkeypatch.setattr(to_thread, "run_sync", counted)
    with TestClient(make_app(), base_url=BASE_URL) as client:
        assert client.post("/v1/flagged", json=RECORD).status_code == 202
    assert len(turns) == 1


def test_a_sender_that_goes_away_is_no_error(make_app, caplog):
    """Half a body, then nothing: no traceback, nothing stored, and the slot is free again."""
    app = make_app()
    messages = [
        {"type": "http.request", "body": b'{"model": ', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/flagged", "raw_path": b"/v1/flagged",
        "query_string": b"", "root_path": "", "scheme": "http", "server": ("127.0.0.1", 8077), "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1:8077"), (b"content-type", b"application/json")],
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert not [one for one in caplog.records if one.levelname == "ERROR"]
    client = TestClient(app, base_url=BASE_URL)
    assert client.post("/v1/flagged", json=RECORD).status_code == 202


@pytest.mark.postgres
def test_a_locked_table_holds_up_neither_liveness_nor_flagging_for_ever(postgres_url, monkeypatch):
    """Readers that wait for a lock get 503 when the lock timeout is over; meanwhile liveness answers at once."""
    monkeypatch.setattr(session, "LOCK_TIMEOUT_S", 1)
    migrate.upgrade(postgres_url)
    database, holder = Database(postgres_url), Database(postgres_url)
    settings = Settings.model_validate({"database_url": postgres_url, "max_concurrent_reads": 4})
    app = create_app(settings, database, metrics=Metrics(), queue=SilentProbe())
    with TestClient(app, base_url=BASE_URL) as client, ThreadPoolExecutor(8) as pool:
        with holder.writing() as locking:
            locking.execute(text("LOCK TABLE audit IN ACCESS EXCLUSIVE MODE"))
            waiting = [pool.submit(client.get, "/v1/audits") for _ in range(6)]
            wait_until(app.state.services.lanes.read._free.locked, timeout_s=30)
            assert client.get("/healthz").status_code == 200
            assert not all(one.done() for one in waiting)
            assert {one.result(30).status_code for one in waiting} <= {503, 429}
        assert client.get("/v1/audits").status_code == 200
    database.dispose()
    holder.dispose()


@pytest.mark.postgres
def test_connections_to_postgresql_have_limits(postgres_url):
    """Statements, locks and pauses end by themselves; keepalives are on, and the URL may set its own."""
    database = Database(postgres_url)
    with database.reading() as reading:
        for name, seconds in (
            ("statement_timeout", session.STATEMENT_TIMEOUT_S),
            ("lock_timeout", session.LOCK_TIMEOUT_S),
        ):
            setting = text("SELECT setting::int FROM pg_settings WHERE name = :name")
            assert reading.scalar(setting, {"name": name}) == 1000 * seconds
        driver = reading.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["keepalives_idle"] == "30"
    database.dispose()
    own = Database(f"{postgres_url}?keepalives_idle=7")
    with own.reading() as reading:
        driver = reading.connection().connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["keepalives_idle"] == "7"
    own.dispose()
