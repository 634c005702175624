"""The producer's half of the client, against a real HTTP server that fails in every way."""

import gc
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.scripted import Failure, ScriptedService
from tests.waiting import wait_until
from wherefrom.client import Client
from wherefrom.client.sender import SendingOptions
from wherefrom.client.service import Service
from wherefrom.errors import ConfigurationError, IdempotencyConflict, InvalidRecord, SpoolFull
from wherefrom.records import FlaggedRecord
from wherefrom.spans import span

CHECKOUT = Path(__file__).parents[3]
FAST = SendingOptions(backoff_base_s=0.02, backoff_cap_s=0.1, poll_s=0.02)
FIELDS: dict[str, Any] = {"prompt": "hello", "completion": "there", "model": "m"}


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """A running service."""
    with ScriptedService() as one:
        yield one


@pytest.fixture
def spool_path(tmp_path: Path) -> Path:
    """A spool file that does not exist yet."""
    return tmp_path / "spool.db"


def make_client(service_url: str, spool_path: Path, **more: Any) -> Client:
    """A client that does not wait long between its attempts."""
    return Client(service_url, **{"spool_path": spool_path, "sending": FAST, "timeout_s": 5.0, **more})


def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_flag_and_flush(service: ScriptedService, spool_path: Path) -> None:
    """What was flagged is stored once flush says that nothing is left, in batches, with the key as bearer token."""
    with make_client(service.url, spool_path, api_key="wf_key") as client:
        keys = [client.flag(**FIELDS) for _ in range(250)]
        assert client.flush(10) == 0
    assert set(service.stored) == set(keys)
    assert len(service.batches) < 250
    assert set(service.authorizations) == {"Bearer wf_key"}


def test_record_mapping_and_fields(service: ScriptedService, spool_path: Path) -> None:
    """A record, a mapping and keywords mean the same; both at once is refused."""
    with make_client(service.url, spool_path) as client:
        client.flag(FlaggedRecord(idempotency_key="a", **FIELDS))
        client.flag({"idempotency_key": "b", **FIELDS})
        client.flag(idempotency_key="c", **FIELDS)
        with pytest.raises(ConfigurationError):
            client.flag(FIELDS, model="m")
        assert client.flush(10) == 0
    assert set(service.stored) == {"a", "b", "c"}


def test_invalid_record_is_told_at_once(service: ScriptedService, spool_path: Path) -> None:
    """A record that cannot be valid is refused by flag itself, naming fields and never their content."""
    with make_client(service.url, spool_path) as client:
        with pytest.raises(InvalidRecord) as caught:
            client.flag(
                prompt="p",
                completion="the secret text",
                model="m",
                severity="urgent",
                spans=[{"start": 5, "end": 2}],
            )
        assert "`severity`: " in str(caught.value)
        assert "`spans[0]`: span end 2" in str(caught.value)
        assert "secret" not in str(caught.value)
        assert client.spool_status().waiting_records == 0


def test_flag_does_not_wait_for_the_service(service: ScriptedService, spool_path: Path) -> None:
    """With a service that hangs, flag returns at once and flush keeps to its time."""
    service.failures.extend(Failure(503, delay_s=1.0) for _ in range(20))
    client = make_client(service.url, spool_path)
    started = time.monotonic()
    for _ in range(100):
        client.flag(**FIELDS)
    assert time.monotonic() - started < 1.0
    started = time.monotonic()
    assert client.flush(0.2) == 100
    assert time.monotonic() - started < 0.8
    assert client.close(0.1) == 100


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_later_then_ok(service: ScriptedService, spool_path: Path, status: int) -> None:
    """Answers that say "later" are tried again until the service takes the record."""
    service.failures.extend(Failure(status) for _ in range(4))
    with make_client(service.url, spool_path) as client:
        key = client.flag(**FIELDS)
        assert client.flush(10) == 0
        assert client.last_error is None
    assert set(service.stored) == {key}


def test_lost_answer_is_harmless(service: ScriptedService, spool_path: Path) -> None:
    """Records that were stored before the answer got lost are sent again under their keys and stored once."""
    service.failures.append(Failure(503, stores=True))
    with make_client(service.url, spool_path) as client:
        keys = {client.flag(**FIELDS) for _ in range(10)}
        assert client.flush(10) == 0
        assert client.refused() == []
    assert set(service.stored) == keys


def test_refused_connection_then_service(spool_path: Path) -> None:
    """Records wait while nothing listens, with a reason to read, and are sent when the service comes up."""
    port = free_port()
    with make_client(f"http://127.0.0.1:{port}", spool_path) as client:
        key = client.flag(**FIELDS)
        assert client.flush(0.3) == 1
        wait_until(lambda: client.last_error is not None)
        assert str(client.last_error).startswith("service_unavailable: no answer")
        with ScriptedService(port) as service:
            assert client.flush(10) == 0
            assert set(service.stored) == {key}


def test_slow_service_times_out_and_is_tried_again(service: ScriptedService, spool_path: Path) -> None:
    """A request over the time limit is given up and sent again."""
    service.failures.append(Failure(503, delay_s=2.0))
    with make_client(service.url, spool_path, timeout_s=0.2) as client:
        client.flag(**FIELDS)
        assert client.flush(1.5) == 0
    assert len(service.stored) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after(service: ScriptedService, spool_path: Path, form: str) -> None:
    """The wait that the service asks for is kept, by flush as well; a date in the past means now."""
    header = "1" if form == "seconds" else "Wed, 21 Oct 2015 07:28:00 GMT"
    service.failures.append(Failure(503, headers={"retry-after": header}))
    with make_client(service.url, spool_path) as client:
        started = time.monotonic()
        client.flag(**FIELDS)
        assert client.flush(10) == 0
        waited_s = time.monotonic() - started
    assert waited_s >= 1.0 if form == "seconds" else waited_s < 0.9


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        ((409, "idempotency_conflict"), "idempotency_conflict"),
        ((422, "a_new_code"), "a_new_code"),
        ((413, "body_too_large"), "body_too_large"),
    ],
)
def test_refused_records_stand_apart(
    service: ScriptedService, spool_path: Path, verdict: tuple[int, str], code: str
) -> None:
    """The service's refusal of some records reaches the callback and `refused`; all others are stored."""
    bad = {"bad-1", "bad-2"}
    service.judge = lambda record: verdict if record["idempotency_key"] in bad else None
    refused_keys: list[str] = []
    with make_client(
        service.url,
        spool_path,
        on_refused=lambda refused: refused_keys.extend(one.idempotency_key for one in refused),
    ) as client:
        for number in range(40):
            client.flag(idempotency_key=f"good-{number}", **FIELDS)
        for key in sorted(bad):
            client.flag(idempotency_key=key, **FIELDS)
        assert client.flush(10) == 0
        wait_until(lambda: set(refused_keys) == bad)
        refused = client.refused()
        assert [(one.idempotency_key, one.code) for one in refused] == [("bad-1", code), ("bad-2", code)]
        assert "refused bad-1" in refused[0].reason
        client.forget_refused(refused)
        assert client.spool_status().refused_records == 0
    assert len(service.stored) == 40


def test_conflict_with_what_the_service_has(service: ScriptedService, spool_path: Path) -> None:
    """A conflict inside a batch stands in that record's result and is kept as refused."""
    service.stored["k"] = {"other": "content"}
    with make_client(service.url, spool_path) as client:
        client.flag(idempotency_key="k", **FIELDS)
        client.flag(idempotency_key="fine", **FIELDS)
        assert client.flush(10) == 0
        assert [(one.idempotency_key, one.reason) for one in client.refused()] == [("k", "other content")]


def test_same_key_in_the_spool(spool_path: Path) -> None:
    """The same record twice is one record; other content under its key is a conflict at once."""
    client = make_client(f"http://127.0.0.1:{free_port()}", spool_path)
    client.flag(idempotency_key="k", **FIELDS)
    client.flag(idempotency_key="k", **FIELDS)
    with pytest.raises(IdempotencyConflict):
        client.flag(idempotency_key="k", **{**FIELDS, "completion": "other"})
    assert client.close(0) == 1


@pytest.mark.parametrize(
    "failure", [Failure(401), Failure(403), Failure(404), Failure(400, code=None), Failure(301, code=None)]
)
def test_wrong_key_or_address_keeps_records(
    service: ScriptedService, spool_path: Path, failure: Failure
) -> None:
    """What blames the key or the address refuses no record: all wait until a person has repaired it."""
    service.failures.extend([failure] * 3)
    with make_client(service.url, spool_path) as client:
        client.flag(**FIELDS)
        wait_until(lambda: client.last_error)
        assert client.refused() == []
        assert client.flush(10) == 0
    assert len(service.stored) == 1


def test_record_that_breaks_the_service_lets_others_pass(service: ScriptedService, spool_path: Path) -> None:
    """A record that the service answers with HTTP 500 again and again holds up no other one, and is not lost."""
    service.judge = lambda record: (500, "internal_error") if record["idempotency_key"] == "poison" else None
    with make_client(service.url, spool_path) as client:
        client.flag(idempotency_key="poison", **FIELDS)
        for number in range(50):
            client.flag(idempotency_key=f"k{number}", **FIELDS)
        wait_until(lambda: client.spool_status().waiting_records == 1)
        assert len(service.stored) == 50
        service.judge = lambda _record: None
        assert client.flush(10) == 0
    assert len(service.stored) == 51


def test_callback_that_raises_stops_nothing(
    service: ScriptedService, spool_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the caller's callback is logged with its traceback; sending goes on."""
    service.judge = lambda record: (422, "invalid_record") if record["idempotency_key"] == "bad" else None

    def broken(_refused: object) -> None:
        raise ZeroDivisionError

    with make_client(service.url, spool_path, on_refused=broken) as client:
        client.flag(idempotency_key="bad", **FIELDS)
        wait_until(client.refused)
        client.flag(idempotency_key="good", **FIELDS)
        assert client.flush(10) == 0
    assert "good" in service.stored
    assert "ZeroDivisionError" in caplog.text


def test_spool_full_is_told_and_ends(service: ScriptedService, spool_path: Path) -> None:
    """A full spool raises and takes nothing; when the service is back, there is room again."""
    service.failures.extend(Failure(503) for _ in range(3))
    with make_client(service.url, spool_path, spool_max_bytes=20_000) as client:
        with pytest.raises(SpoolFull):
            flag_many(client, {**FIELDS, "completion": "long " * 200})
        assert client.flush(10) == 0
        client.flag(**FIELDS)
        assert client.flush(10) == 0


def flag_many(client: Client, fields: dict[str, Any]) -> None:
    """More than the spool holds."""
    for _ in range(1000):
        client.flag(fields)


def test_closed_client(service: ScriptedService, spool_path: Path) -> None:
    """A closed client says so, and closing twice is fine."""
    client = make_client(service.url, spool_path)
    client.flag(**FIELDS)
    assert client.close() == 0
    assert client.close() == 0
    for use in (lambda: client.flag(**FIELDS), lambda: client.flush(1), client.refused):
        with pytest.raises(ConfigurationError, match="closed"):
            use()
    wait_until(lambda: not any(one.name == "wherefrom-sender" for one in threading.enumerate()))


def test_reading_client_makes_no_spool(service: ScriptedService, spool_path: Path) -> None:
    """A client that only reads leaves no file and no thread behind."""
    with make_client(service.url, spool_path) as client:
        assert client.flush(1) == 0
        assert client.refused() == []
    assert not spool_path.exists()


@pytest.mark.parametrize("url", ["ftp://host", "no-scheme", "http://", "http://[::1"])
def test_unusable_url(spool_path: Path, url: str) -> None:
    """An address that cannot be one is refused when the client is made."""
    with pytest.raises(ConfigurationError, match="service URL"):
        make_client(url, spool_path)


def test_key_with_a_line_break(spool_path: Path) -> None:
    """A key read from a file with its line break is refused before it breaks a header."""
    with pytest.raises(ConfigurationError, match="API key"):
        make_client("http://127.0.0.1:1", spool_path, api_key="wf_key\n")


_FLAG_AND_DIE = """
    import os, signal, sys
    from wherefrom.client import Client
    client = Client(sys.argv[1], spool_path=sys.argv[2])
    for number in range(200):
        client.flag(idempotency_key=f"{sys.argv[3]}-{number}", prompt="p", completion="c", model="m")
    if sys.argv[4] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(client.flush(20))
"""


def start_flagging(url: str, spool_path: Path, name: str, ending: str) -> "subprocess.Popen[bytes]":
    """Another process that flags 200 outputs, and then dies or flushes."""
    code = textwrap.dedent(_FLAG_AND_DIE)
    return subprocess.Popen([sys.executable, "-c", code, url, str(spool_path), name, ending], cwd=CHECKOUT)


def test_killed_process_loses_nothing(spool_path: Path) -> None:
    """A new client sends by itself what a killed process left in the spool."""
    port = free_port()
    killed = start_flagging(f"http://127.0.0.1:{port}", spool_path, "a", "die")
    assert killed.wait(30) == -signal.SIGKILL
    with ScriptedService(port) as service, make_client(service.url, spool_path) as client:
        wait_until(lambda: len(service.stored) == 200)
        assert client.flush(10) == 0


def test_two_processes_share_a_spool(service: ScriptedService, spool_path: Path) -> None:
    """Two processes on one spool store each record once, and both end with an empty spool."""
    both = [start_flagging(service.url, spool_path, name, "flush") for name in ("a", "b")]
    assert [one.wait(30) for one in both] == [0, 0]
    assert len(service.stored) == 400


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_fork(service: ScriptedService, spool_path: Path) -> None:
    """After a fork, parent and child go on flagging into the same spool, each with its own thread."""
    with make_client(service.url, spool_path) as client:
        client.flag(idempotency_key="before", **FIELDS)
        child = multiprocessing.get_context("fork").Process(target=_flag_in_child, args=(client,))
        child.start()
        client.flag(idempotency_key="parent", **FIELDS)
        child.join(20)
        assert child.exitcode == 0
        assert client.flush(10) == 0
    assert set(service.stored) == {"before", "parent", "child"}


def _flag_in_child(client: Client) -> None:
    client.flag(idempotency_key="child", **FIELDS)
    os._exit(client.flush(10))


def sender_threads() -> list[threading.Thread]:
    """The threads of all clients of this process."""
    return [one for one in threading.enumerate() if one.name == "wherefrom-sender"]


class Owner:
    """Holds a client that calls it back: a cycle."""

    def __init__(self, url: str, spool_path: Path) -> None:
        self.client = make_client(url, spool_path, on_refused=self.take)

    def take(self, refused: object) -> None:
        """Ignore what was refused."""


def test_dropped_client_ends_its_thread_and_loses_nothing(service: ScriptedService, spool_path: Path) -> None:
    """The service is away: the threads end, the records wait in the file, and the next client sends them."""
    before = set(sender_threads())
    closed = f"http://127.0.0.1:{free_port()}"
    keys, alive = [], []
    for number in range(3):
        owner = Owner(closed, spool_path.with_name(f"s{number}.db"))
        keys.append(owner.client.flag(**FIELDS))
        alive.append(weakref.ref(owner.client))
        del owner
    gc.collect()
    assert [one() for one in alive] == [None] * 3
    wait_until(lambda: not set(sender_threads()) - before, message="the end of the threads")
    for number in range(3):
        with make_client(service.url, spool_path.with_name(f"s{number}.db")) as client:
            assert client.flush(10) == 0
    assert sorted(service.stored) == sorted(keys)


def test_dropped_client_sends_what_it_can(service: ScriptedService, spool_path: Path) -> None:
    """A function that flags and forgets its client is served, though nobody called `close`."""
    before = set(sender_threads())
    client = make_client(service.url, spool_path)
    keys = [client.flag(**FIELDS) for _ in range(250)]
    del client
    gc.collect()
    wait_until(lambda: not set(sender_threads()) - before, message="the end of the thread")
    assert set(service.stored) == set(keys)


def test_dropped_client_does_not_wait_out_a_long_pause(service: ScriptedService, spool_path: Path) -> None:
    """A wait that the service asked for keeps neither the thread nor is it cut short."""
    before = set(sender_threads())
    service.failures.append(Failure(503, headers={"retry-after": "3000"}))
    clients = [make_client(service.url, spool_path)]
    clients[0].flag(**FIELDS)
    wait_until(lambda: clients[0].last_error is not None)
    clients.clear()
    gc.collect()
    wait_until(lambda: not set(sender_threads()) - before, message="the end of the thread")
    assert not service.stored


def test_records_of_one_trace_need_no_list(service: ScriptedService) -> None:
    """However many they are: the header with a traceparent for each has room for 140."""
    one = f"00-{'1' * 32}-{'2' * 16}-01"
    records = [FlaggedRecord(prompt="p", completion=f"c{number}", model="m") for number in range(141)]
    with Service(service.url) as connected, span("import", parent=one):
        assert len(connected.submit(records)) == 141
    assert service.traces == [(one, None)]
