"""From a pile of dead audits, a full queue or a blamed source to a receiver, by the sweeper's thread and by the commands."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from starlette.testclient import TestClient

from db.notices import alerts
from db.reviewing import review_queues
from db.session import Database
from tests.integration.db.builders import answered, record, register
from tests.services.receiver import Received, Receiver
from tests.waiting import wait_until
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.records import (
    AuditFilter,
    QueueDraft,
)
from wherefrom.settings import Settings
from wherefrom.webhook import new_secret
from worker.checkup.doctor import examine
from worker.sweeper.notifying import Notifier

pytestmark = pytest.mark.redis

SECRET = new_secret()
#: What a flagged output of the builders says.
FLAGGED = record().completion


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Notices are tested on both engines in tests/integration/db; SQLite is enough here."""
    return sqlite_url


@pytest.fixture
def told(settings: Settings, receiver: Receiver) -> Settings:
    """Settings that tell the receiver from low numbers on."""
    changes = {
        "notify_url": SecretStr(f"http://127.0.0.1:{receiver.port}/in"),
        "notify_secret": SecretStr(SECRET),
        "notify_hosts": ("127.0.0.1",),
        "notify_private": True,
        "notify_dead_audits": 3,
        "notify_queue_audits": 3,
        "notify_blame_outputs": 3,
        "notify_blame_q": 1.0,
        "service_url": "https://ann:pw@desk.example/base/",
        "recipe": None,
    }
    return Settings.model_validate(settings.model_dump() | changes)


@pytest.fixture
def notifier(told: Settings, database: Database) -> Notifier:
    """The notifier of the settings, not running."""
    register(database)
    made = Notifier.of(database, settings=told, metrics=Metrics())
    assert made is not None
    return made


@pytest.fixture
def audits(notifier: Notifier, database: Database) -> list[int]:
    """Five answered audits whose first citation is of one source, all in a review queue."""
    del notifier
    made = answered(database, 1, *(record(number) for number in range(5)))
    review_queues.create_queue(database, QueueDraft(name="all", rule=AuditFilter()), created_by=None)
    review_queues.fill_all(database)
    return made


def kill(database: Database, *audits: int) -> None:
    """Let audits be dead."""
    with database.writing() as session:
        for one in audits:
            session.execute(text("UPDATE audit SET state = 'dead' WHERE id = :id"), {"id": one})


def revive(database: Database) -> None:
    """Let no audit be dead."""
    with database.writing() as session:
        session.execute(text("UPDATE audit SET state = 'done'"))


def deliver(notifier: Notifier) -> None:
    """One look, and all that is due."""
    notifier.look()
    notifier.tell()


def told_of(got: Received) -> dict[str, Any]:
    """Kind and data of a notice."""
    body = json.loads(got.body)
    return {"type": body["type"], **body["data"]}


def is_signed(got: Received) -> bool:
    """What a receiver checks with the secret that both know."""
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    made = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return got.headers["webhook-signature"] == f"v1,{made}"


def test_all_three_are_told_signed_and_without_a_text(
    notifier: Notifier, database: Database, receiver: Receiver, audits: list[int]
) -> None:
    """A blamed source, a full queue and dead audits: numbers and links, nothing that was flagged or learned, no name of a person or a queue."""
    deliver(notifier)
    kill(database, *audits[:3])
    deliver(notifier)
    found = {one["type"]: one for one in map(told_of, receiver.got)}
    fallen = found.pop("source.blamed.resolved")  # the three that died named it
    assert (fallen["first_citations"], fallen["subject"]) == (2, fallen["source"])
    assert set(found) == {"source.blamed", "queue.filled", "audits.dead"}
    blamed = found["source.blamed"]
    assert (blamed["first_citations"], blamed["audits"]) == (5, 5)
    assert blamed["link"] == f"https://desk.example/base/source?source={blamed['source']}"
    assert found["queue.filled"] == {
        "type": "queue.filled",
        "subject": "1",
        "queue_id": 1,
        "open": 5,
        "link": "https://desk.example/base/review/1",
    }
    assert found["audits.dead"]["dead"] == 3
    assert found["audits.dead"]["link"] == "https://desk.example/base/?state=dead"
    sent = b"".join(one.body for one in receiver.got).decode()
    assert FLAGGED not in sent
    assert "pw" not in sent
    assert all(map(is_signed, receiver.got))


def test_it_is_quiet_while_nothing_is_news(
    notifier: Notifier, database: Database, receiver: Receiver, audits: list[int]
) -> None:
    """The dead are told once; that they were retried and died again within the pause is no news either."""
    kill(database, *audits)
    for _ in range(3):
        deliver(notifier)
        revive(database)
        deliver(notifier)
        kill(database, *audits)
    assert [told_of(one)["type"] for one in receiver.got].count("audits.dead") == 1


def test_a_threshold_of_nought_is_never_reached(
    told: Settings, database: Database, receiver: Receiver, audits: list[int]
) -> None:
    """Each kind can be turned off."""
    off = {"notify_dead_audits": 0, "notify_queue_audits": 0, "notify_blame_outputs": 0}
    notifier = Notifier.of(database, settings=told.model_copy(update=off), metrics=Metrics())
    assert notifier is not None
    kill(database, *audits)
    deliver(notifier)
    assert receiver.got == []


def test_a_source_whose_size_explains_it_is_not_told(
    told: Settings, database: Database, receiver: Receiver, audits: list[int]
) -> None:
    """The number alone does not accuse anybody where the test is known."""
    strict = told.model_copy(update={"notify_blame_q": 1e-9})
    notifier = Notifier.of(database, settings=strict, metrics=Metrics())
    assert notifier is not None
    assert audits
    deliver(notifier)
    assert [told_of(one)["type"] for one in receiver.got] == ["queue.filled"]


def test_a_receiver_that_is_away_gets_it_later_once(
    notifier: Notifier, database: Database, receiver: Receiver, audits: list[int]
) -> None:
    """Failed tries wait longer each time and keep id and bytes; the first that is taken is the last."""
    kill(database, *audits[:3])
    with database.writing() as session:  # the others are not what this is about
        session.execute(text("UPDATE review_queue SET closed_at = CURRENT_TIMESTAMP"))
    receiver.answers = [500, 503, 204]
    notifier.look()
    waits: list[float] = []
    for _ in range(4):
        notifier.tell()
        with database.writing() as session:
            waits += session.execute(text(_WAITS)).scalars().all()
            session.execute(
                text("UPDATE webhook_delivery SET next_attempt_at = created_at WHERE state = 'pending'")
            )
    assert len(receiver.got) == 3
    assert len({(one.headers["webhook-id"], one.body) for one in receiver.got}) == 1
    assert waits[0] < waits[1]


#: Seconds for which pending notices wait.
_WAITS = "SELECT (julianday(next_attempt_at) - julianday('now')) * 86400 FROM webhook_delivery WHERE state = 'pending' ORDER BY id"


def test_the_sweepers_thread_tells_and_ends(
    told: Settings,
    database: Database,
    receiver: Receiver,
    *,
    audits: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks at its start, tells what it finds, survives a bug, and ends with the process."""
    monkeypatch.setattr("worker.sweeper.notifying.POLL_S", 0.02)
    real, calls = alerts.watch, iter(range(100))

    def watch(*args: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise RuntimeError("a bug")
        return real(*args, **options)

    monkeypatch.setattr("worker.sweeper.notifying.alerts.watch", watch)
    notifier = Notifier.of(
        database, settings=told.model_copy(update={"notify_every_seconds": 0.02}), metrics=Metrics()
    )
    assert notifier is not None
    assert audits
    notifier.start()
    try:
        wait_until(lambda: len(receiver.got) == 2, message="two notices")
    finally:
        notifier.close()
    assert not notifier._thread.is_alive()


def test_nothing_runs_where_nothing_is_set(settings: Settings, database: Database) -> None:
    """Off by default."""
    assert Notifier.of(database, settings=settings, metrics=Metrics()) is None


def test_doctor_and_page_show_what_was_given_up(
    told: Settings, notifier: Notifier, database: Database, *, receiver: Receiver, audits: list[int]
) -> None:
    """An operator sees it where they look, with what to do, and a scrape counts it."""
    assert next(one for one in examine(told) if one.what == "webhook").verdict == "ok"
    receiver.answers = [410]
    assert audits
    deliver(notifier)
    (found,) = (one for one in examine(told) if one.what == "notices")
    assert found.verdict == "warning"
    assert "2 were given up" in found.text
    assert "notify retry" in found.text
    app = create_app(told, database, metrics=Metrics(), queue=SilentProbe())
    client = TestClient(app, base_url="http://127.0.0.1:8077")
    page = client.get("/queue").text
    assert "webhook_gone" in page
    assert "queue.filled" in page
    assert 'wherefrom_webhook_deliveries{state="dead"} 2.0' in client.get("/metrics").text
    assert SECRET not in page
