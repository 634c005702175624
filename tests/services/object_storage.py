"""An S3 server on loopback (moto, in this process), and a link to it that breaks when it is told."""

import socket
import threading
from contextlib import suppress
from typing import Self

import httpx

KEY_ID, SECRET = "AKIATESTTESTTESTTEST", "not-a-secret-of-anybody"


class ObjectStorage:
    """One server on a free port; buckets live in this process."""

    def __init__(self) -> None:
        import logging

        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line per request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)

    def __enter__(self) -> Self:
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        httpx.put(f"{self.url}/{name}").raise_for_status()

    def read(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return httpx.get(f"{self.url}/{bucket}/{name}").raise_for_status().content

    def write(self, bucket: str, name: str, content: bytes) -> None:
        """Replace an object."""
        httpx.put(f"{self.url}/{bucket}/{name}", content=content).raise_for_status()

    def refuse_strangers(self, refuse: bool) -> None:
        """Let in only credentials that the server gave out itself (it gave out none), or everybody again."""
        count = b"0" if refuse else b"inf"
        httpx.post(f"{self.url}/moto-api/reset-auth", content=count).raise_for_status()


class BreakingLink:
    """A port that hands bytes on to a server, and once so many came back stops for good, or hands on nothing more and stays."""

    def __init__(self, port: int, *, breaks_after_bytes: int, stays: bool = False) -> None:
        self._target, self._left, self._stays = port, breaks_after_bytes, stays
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._break()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._open += [near, far]
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while content := source.recv(1 << 14):
                if counted:
                    with self._lock:
                        content, self._left = content[: self._left], self._left - len(content)
                sink.sendall(content)
                if counted and self._left <= 0:
                    if not self._stays:
                        self._break()
                    return
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _break(self) -> None:
        with self._lock:
            for one in [self._listening, *self._open]:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
