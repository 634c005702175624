"""A receiver of webhooks on loopback: keeps what it gets, answers what it is told, slowly where it is told so."""

import ssl
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A server on a free port."""

    def __init__(self, certificate: Path | None = None) -> None:
        """Prepare; with a certificate (PEM, with its key) it speaks TLS."""
        self.got: list[Received] = []
        #: Answers, first to last; the last one stays. A status, or None for an answer that never ends.
        self.answers: list[int | None] = [204]
        self._done = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.port = self._server.server_address[1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append(Received(self.path, headers, body))
                status = receiver.answers[0] if len(receiver.answers) == 1 else receiver.answers.pop(0)
                if status is None:
                    self._drip()
                    return
                self.send_response(status)
                self.send_header("Location", f"http://127.0.0.1:{receiver.port}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _drip(self) -> None:
                """Send a header a byte at a time: each byte is in time, the whole never is."""
                try:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nx-long: ")
                    while not receiver._done.wait(0.05):
                        self.wfile.write(b"x")
                        self.wfile.flush()
                except OSError:  # the sender gave up, as it should
                    return

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        return Handler

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
