"""Flagged outputs that find the line full are refused while their headers are parsed, and the connection lives on where it can."""

import asyncio
import json

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from web.guard.admission import Lanes
from web.guard.protocol import refusing
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

BODY = b'{"model": "m", "prompt": "p", "completion": "c"}'
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"


LENGTH = len(BODY)


def post(*, path=b"/v1/flagged", body=BODY, length=LENGTH, more=b""):
    """The bytes of a flagged output; `length` None sends no length."""
    declared = b"" if length is None else b"Content-Length: %d\r\n" % length
    return b"POST %b HTTP/1.1\r\nHost: h\r\n%b%b\r\n%b" % (path, declared, more, body)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = b""
        self.closed = False

    def write(self, data):
        assert not self.closed
        self.written += data

    def close(self):
        self.closed = True

    def is_closing(self):
        return self.closed

    def pause_reading(self):
        pass

    def resume_reading(self):
        pass

    @property
    def statuses(self):
        """Status codes of the answers so far."""
        return [int(one[:3]) for one in self.written.split(b"HTTP/1.1 ")[1:]]


class Server:
    """A protocol over a wire, before an application that answers 200 and notes paths; `hold` keeps it from answering."""

    def __init__(self, *, full=True):
        self.metrics = Metrics()
        lanes = Lanes.of(Settings(max_concurrent_writes=1, max_waiting_requests=0), self.metrics)
        self.store, self.wire, self.served, self.hold = lanes.store, Wire(), [], asyncio.Event()
        self.hold.set()
        self._is_held_full = full
        config = Config(self._app, interface="asgi3", log_config=None)
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        self.protocol = refusing(lanes)(config=config, server_state=state, app_state={})

    async def __aenter__(self):
        if self._is_held_full:
            await self.store._free.acquire()
        self.protocol.connection_made(self.wire)
        return self

    async def __aexit__(self, *_):
        self.protocol._unset_keepalive_if_required()

    async def gets(self, *parts):
        """Feed what arrives, and let the application answer."""
        for part in parts:
            self.protocol.data_received(part)
            for _ in range(10):
                await asyncio.sleep(0)

    async def _app(self, scope, receive, send):
        self.served.append(scope["path"])
        await self.hold.wait()
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    @property
    def refused(self):
        """How many the metric counts."""
        return self.metrics.registry.get_sample_value("wherefrom_http_refused_total", {"lane": "store"}) or 0


@pytest.mark.parametrize(
    "parts", [(post(),), (post(body=b""), BODY[:9], BODY[9:])], ids=["at once", "piecemeal"]
)
def test_a_full_line_answers_429_and_the_connection_serves_the_next_request(parts):
    """The application never sees the refused request or its body; the answer says when to try again."""

    async def story():
        async with Server() as server:
            await server.gets(*parts)
            head, _, body = server.wire.written.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            assert {b"retry-after: 1", b"cache-control: no-store", b"date: today"} <= set(head.split(b"\r\n"))
            assert b"content-length: %d" % len(body) in head
            assert json.loads(body)["error"]["code"] == "too_busy"
            assert b"connection: close" not in head
            await server.gets(post(), HEALTH)
            assert server.wire.statuses == [429, 429, 200]
            assert (server.served, server.refused, server.wire.closed) == (["/healthz"], 2, False)

    asyncio.run(story())


@pytest.mark.parametrize(
    "request_",
    [HEALTH, post(path=b"/v1/other"), post().replace(b"POST", b"PUT"), post(path=b"/v1/flagged/")],
    ids=["healthz", "path", "method", "slash"],
)
def test_only_flagged_outputs_are_refused_here(request_):
    """Everything else is the application's."""

    async def story():
        async with Server() as server:
            await server.gets(request_)
            assert (server.wire.statuses, server.refused) == ([200], 0)

    asyncio.run(story())


def test_while_there_is_room_the_application_serves():
    """A query behind the path changes nothing."""

    async def story():
        async with Server(full=False) as server:
            await server.gets(post(), post(path=b"/v1/flagged?a=b"))
            assert (server.wire.statuses, server.served) == ([200, 200], ["/v1/flagged"] * 2)

    asyncio.run(story())


@pytest.mark.parametrize(
    "request_",
    [
        post(body=b"x" * 100, length=2 << 20),
        post(body=b"", length=10**18),
        post(length=None, body=b"5\r\nabcde\r\n", more=b"Transfer-Encoding: chunked\r\n"),
        post(body=b"", more=b"Expect: 100-continue\r\n"),
    ],
    ids=["large", "huge", "chunked", "expects"],
)
def test_a_request_whose_rest_may_be_long_or_never_come_ends_its_connection(request_):
    """It gets its 429 first, and what it sends after it reaches nobody."""

    async def story():
        async with Server() as server:
            await server.gets(request_)
            assert (server.wire.statuses, server.wire.closed) == ([429], True)
            assert b"connection: close\r\n" in server.wire.written
            assert server.served == []

    asyncio.run(story())


def test_a_client_that_wants_no_second_request_is_let_go_when_its_body_has_come():
    """Not before: a connection closed over unread bytes may take the answer with it."""

    async def story():
        async with Server() as server:
            await server.gets(post(body=b"", more=b"Connection: close\r\n"))
            assert (server.wire.statuses, server.wire.closed) == ([429], False)
            assert b"connection: close\r\n" in server.wire.written
            await server.gets(BODY)
            assert server.wire.closed

    asyncio.run(story())


def test_a_request_behind_one_in_work_waits_its_turn():
    """Answers keep the order of their requests."""

    async def story():
        async with Server() as server:
            server.hold.clear()
            await server.gets(HEALTH + post())
            assert (server.served, server.wire.statuses) == (["/healthz"], [])
            server.hold.set()
            await server.gets(b"")
            assert server.served == ["/healthz", "/v1/flagged"]

    asyncio.run(story())


def test_a_kept_connection_is_closed_when_nothing_follows():
    """The refused request starts the clock of idle connections, as an answered one does."""

    async def story():
        async with Server() as server:
            await server.gets(post())
            assert server.protocol.timeout_keep_alive_task is not None

    asyncio.run(story())
