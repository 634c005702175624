"""The way out before the application: a flagged output that finds the line full is answered while its headers are parsed.

Under ten times the load nine of ten requests end here. An answer through the application costs a task, a request cycle and two writes, and
at each step the event loop competes with the threads that store for Python's interpreter lock. Here it costs one write.
"""

from http import HTTPStatus

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from web.guard.admission import REFUSAL_BODIES, REFUSAL_HEADERS, Lanes

_PATH = b"/v1/flagged"
#: A body that is declared larger is not read to its end for the sake of the connection.
_MOST_DRAINED_BYTES = 1 << 20


class RefusingProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, which refuses flagged outputs while the line is full. `refusing` gives it the lanes.

    The connection survives where the rest of the request can be skipped: clients with a pool would otherwise connect anew for each try.
    """

    lanes: Lanes
    _is_skipping = False

    def on_headers_complete(self) -> None:
        """Refuse the request, or begin to serve it."""
        if self._is_idle() and self._is_flagged_output() and self.lanes.store.is_full:
            self._refuse()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Skip what belongs to a refused request."""
        if not self._is_skipping:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The connection can carry the next request, or is closed if its client wants that."""
        if not self._is_skipping:
            super().on_message_complete()
            return
        self._is_skipping = False
        if self.parser.should_keep_alive():
            self.on_response_complete()
        else:
            self.transport.close()

    def _is_idle(self) -> bool:
        """No request before this one is in work: answers keep the order of their requests."""
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # None before the first request

    def _is_flagged_output(self) -> bool:
        return self.parser.get_method() == b"POST" and self.url.partition(b"?")[0] == _PATH

    def _refuse(self) -> None:
        self.lanes.store.refuse()
        self._is_skipping = self._can_skip()
        keeps = self._is_skipping and self.parser.should_keep_alive()
        lines = [b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]
        self.transport.write(b"".join([_START, *lines, _END if keeps else _LAST_END]))
        if not self._is_skipping:
            self._is_skipping = True
            self.transport.close()

    def _can_skip(self) -> bool:
        """The rest of the request is short and certain to come."""
        if self.expect_100_continue:
            return False
        declared = next((value for name, value in self.headers if name == b"content-length"), b"")
        return declared.isdigit() and int(declared) <= _MOST_DRAINED_BYTES


def refusing(lanes: Lanes) -> type[RefusingProtocol]:
    """The protocol of a server whose application has these lanes."""
    return type(RefusingProtocol.__name__, (RefusingProtocol,), {"lanes": lanes})


def _lines(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % pair for pair in headers)


_KIND, _BODY = REFUSAL_BODIES[True]
_START = STATUS_LINE[HTTPStatus.TOO_MANY_REQUESTS] + _lines(
    [*REFUSAL_HEADERS, (b"content-type", _KIND), (b"content-length", b"%d" % len(_BODY))]
)
_END = b"\r\n" + _BODY
_LAST_END = b"connection: close\r\n" + _END
