"""Notes reads of flagged texts before they are shown: one line of the journal per answer, and per page of an answer that is streamed.

What reads a text for somebody says so (`db.audit_trail.reads`); this middleware journals it before the first byte goes out. So a route needs no line of
its own, and cannot forget one.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from db.audit_trail.reads import Reads, collecting
from db.audit_trail.trail import Event
from web.errors import answer_of
from web.filters import LINK_NAMES
from web.guard.caller import NOBODY, Caller
from web.services import Services
from wherefrom.errors import ReadNotRecorded
from wherefrom.journal import Journal, Line, new_id
from wherefrom.logs import get_logger
from wherefrom.records import utc_now

_log = get_logger(__name__)

#: How long an answer waits for the disk, seconds.
WAIT_S = 5.0
#: Filters that hold words of texts or names of people; the trail gets a keyed digest of them.
DIGESTED = frozenset({"text", "in_prompt", "in_output", "in_cited", "assignee"})
#: Longest value of a filter that the trail keeps, characters.
_LONGEST = 200
_MOST_PARAMETERS = 100


class NotedReads:
    """ASGI middleware: what an answer shows is journaled first. With `required`, an answer that cannot be journaled is refused."""

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services
        self._required = services.settings.trail_reads == "required"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        journal = self._services.journal
        if scope["type"] != "http" or journal is None:
            await self._app(scope, receive, send)
            return
        refused = False
        with collecting() as reads:

            async def note_then_send(message: Message) -> None:
                nonlocal refused
                if refused:
                    return
                if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
                    reads.show_nothing()
                if reads.waits:
                    try:
                        await self._note(journal, self._lines(scope, reads))
                    except ReadNotRecorded as error:
                        if message["type"] != "http.response.start":
                            raise  # a file is broken off in the middle, and whoever takes it sees that it is not whole
                        refused = True
                        await answer_of(Request(scope), error)(scope, receive, send)
                        return
                await send(message)

            await self._app(scope, receive, note_then_send)

    def _lines(self, scope: Scope, reads: Reads) -> list[Line]:
        caller: Caller = scope.get("state", {}).get("caller", NOBODY)
        kind = reads.kind
        audits, events = reads.take()
        if audits:
            events = [Event(kind, _subject(scope, audits), self._payload(scope, caller, audits)), *events]
        now = utc_now()
        return [Line(new_id(), now, one.kind.value, one.subject, caller.actor, one.payload) for one in events]

    def _payload(self, scope: Scope, caller: Caller, audits: Sequence[int]) -> dict[str, Any]:
        payload = {
            "route": getattr(scope.get("route"), "path", ""),
            "audits": audits,
            "filter": shown_filter(scope["query_string"], self._services),
            "via": caller.via.value,
            "key": caller.key,
        }
        return {name: value for name, value in payload.items() if value}

    async def _note(self, journal: Journal, lines: Sequence[Line]) -> None:
        written = [journal.append(line) for line in lines]
        if not self._required:
            for one in written:
                one.add_done_callback(partial(_tell, self._services))
            return
        try:
            for one in written:
                await asyncio.wait_for(asyncio.wrap_future(one), WAIT_S)
        except (ReadNotRecorded, TimeoutError) as error:
            self._services.metrics.count("trail_reads_unnoted_total")
            _log.error("read_refused", reason=str(error) or "the disk does not answer")
            if isinstance(error, TimeoutError):
                raise ReadNotRecorded("the disk of the journal does not answer") from error
            raise


def _subject(scope: Scope, audits: Sequence[int]) -> str:
    """The audit that the address names, or the only one; else a listing."""
    named = scope.get("path_params", {}).get("audit_id")
    if named is not None:
        return f"audit:{int(named)}"
    return f"audit:{audits[0]}" if len(audits) == 1 else "audits"


def _tell(services: Services, written: Any) -> None:
    """Count a read that was shown and is not in the journal."""
    if written.exception() is not None:
        services.metrics.count("trail_reads_unnoted_total")
        _log.error("read_unnoted", reason=str(written.exception()))


def shown_filter(query: bytes, services: Services) -> Mapping[str, str]:
    """The filters of a list as the trail keeps them: known names only, and no words of texts."""
    try:
        given = dict(parse_qsl(query.decode("ascii"), max_num_fields=_MOST_PARAMETERS))
    except ValueError:
        return {}
    return {
        name: f"hmac:{services.signer().filter_digest(given[name])}"
        if name in DIGESTED
        else given[name][:_LONGEST]
        for name in LINK_NAMES
        if given.get(name)
    }
