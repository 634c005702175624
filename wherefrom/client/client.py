"""The producer's and the auditor's client: flags through the spool without waiting, reads over HTTP.

Ties the spool, its sender and the service's pages together and keeps them usable over a fork.
"""

import os
import threading
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from wherefrom.client.connection import Connection
from wherefrom.client.records_in import read_record, record_json
from wherefrom.client.sender import OnRefused, Sender, SendingOptions
from wherefrom.client.service import DEFAULT_TIMEOUT_S, Service
from wherefrom.client.spool import RefusedRecord, Spool, SpoolStatus
from wherefrom.errors import ConfigurationError
from wherefrom.records import FlaggedRecord
from wherefrom.settings import load_settings
from wherefrom.spans import Kind, span
from wherefrom.traceparent import read_traceparent

#: Longest wait of `close` for the records that are left, seconds.
CLOSE_TIMEOUT_S = 5.0
#: How often `flush` looks whether another process emptied the spool, seconds.
FLUSH_POLL_S = 0.1


class Client(Service):
    """Flags outputs and reads audits; one per process is enough, and all threads may share it.

    `flag` writes to a file on disk and returns; a daemon thread sends. What is in the file survives a killed process:
    the next client on the same file sends it. Several processes may share one file. After a fork the child's client
    opens the file and the connection anew and starts its own thread at its first `flag`. A client that is dropped without
    `close` still sends what it can; then its thread ends, and what is left stays in the file.

    Args:
        url: Address of the service; the setting `service_url` where it is None.
        api_key: Key with the scopes `ingest` (to flag) and `read`; the setting `api_key` where it is None.
        spool_path: The spool file, on a local disk, for one service; the setting `spool_path` where it is None.
        spool_max_bytes: Largest spool; the setting `spool_max_bytes` where it is None.
        timeout_s: Longest wait of one request for a connection, and for each part of an answer, seconds.
        on_refused: Called in the sending thread with records that the service will never take.
        sending: Sizes of batches and times of backoff.

    Raises:
        ConfigurationError: the URL or the API key cannot be used.
        SpoolUnavailable: there is a spool file, and it cannot be read.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        spool_path: Path | str | None = None,
        spool_max_bytes: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        on_refused: OnRefused | None = None,
        sending: SendingOptions | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout_s=timeout_s)
        settings = load_settings()
        path = Path(spool_path) if spool_path is not None else settings.spool_path
        self._spool = Spool(path.absolute(), max_bytes=spool_max_bytes or settings.spool_max_bytes)
        self._on_refused = (
            on_refused  # the sender reaches it through the client: its owner may hold the client
        )
        self._sending = sending or SendingOptions()
        self._lock = threading.Lock()
        self._sender: Sender | None = None
        self._closed = False
        self._at_drop: weakref.finalize[..., Client] | None = None
        #: Of a parent process: kept so that they are never finalised here.
        self._inherited: list[object] = []
        _guard_forks(self)
        if self._spool.path.exists() and self._spool.status().waiting_records:
            self._running_sender()

    def flag(
        self,
        record: FlaggedRecord | Mapping[str, Any] | None = None,
        /,
        *,
        traceparent: str | None = None,
        **fields: Any,
    ) -> str:
        """Take one flagged output into the spool and return at once; it is sent in the background.

        Args:
            record: The record, or its fields as a mapping; None where they are given as keywords.
            traceparent: The W3C `traceparent` of the trace that the output belongs to; that of OpenTelemetry's present span where it is None.
            **fields: Fields of record v1: `prompt` or `messages`, `completion`, `model`, `reason`, ...

        Returns:
            The idempotency key: the record's own, or a new one.

        Raises:
            InvalidRecord: the record does not have the documented shape.
            IdempotencyConflict: another record waits under the same key.
            SpoolFull: the spool has reached its limit; the record was not taken.
            SpoolUnavailable: the spool file cannot be used; the record was not taken.
            DiskFull: the disk is full; the record was not taken.
            ConfigurationError: the client is closed.
        """
        if record is not None and fields:
            raise ConfigurationError("give a record or its fields as keywords, not both")
        valid = read_record(fields if record is None else record)
        key = valid.idempotency_key or uuid.uuid4().hex
        self._refuse_when_closed()
        with span("flag", parent=read_traceparent(traceparent), kind=Kind.PRODUCER) as flagging:
            self._spool.add(key, record_json(valid, idempotency_key=key), traceparent=flagging.traceparent)
        self._running_sender().wake()
        return key

    def flush(self, timeout_s: float) -> int:
        """Wait until the spool is empty, `timeout_s` at most; ends a backoff unless the service asked for the wait.

        Returns:
            Records that are still waiting, those of other processes included; 0 when all were taken or refused.
        """
        self._refuse_when_closed()
        deadline = time.monotonic() + timeout_s
        left = self.spool_status().waiting_records
        if left:
            self._running_sender().hurry()
        while left and (remaining_s := deadline - time.monotonic()) > 0:
            self._running_sender().wait_for_progress(min(remaining_s, FLUSH_POLL_S))
            left = self.spool_status().waiting_records
        return left

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> int:
        """Flush for `timeout_s` at most, then stop; what is left stays on disk for the next client.

        Returns:
            Records that are still waiting.
        """
        if self._closed:
            return 0
        deadline = time.monotonic() + timeout_s
        left = self.flush(timeout_s)
        with self._lock:
            self._closed = True
            sender = self._sender
        if sender is not None:
            sender.stop()
            sender.join(
                max(deadline - time.monotonic(), 0.1)
            )  # a slow request ends by itself in the daemon thread
        self._spool.close()
        self._connection.close()
        return left

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_error(self) -> str | None:
        """Why the last attempt to send failed (`code: text`); None after one that did not."""
        error = self._sender.last_error if self._sender else None
        return f"{error.code}: {error}" if error else None

    def spool_status(self) -> SpoolStatus:
        """How full the spool is, all processes together."""
        if not self._spool.path.exists():
            return SpoolStatus(0, 0, 0, 0, max_bytes=self._spool.max_bytes)
        return self._spool.status()

    def refused(self) -> list[RefusedRecord]:
        """Records that the service will never take, with its reason, oldest first; they stay until forgotten."""
        self._refuse_when_closed()
        return self._spool.refused() if self._spool.path.exists() else []

    def forget_refused(self, refused: Sequence[RefusedRecord]) -> None:
        """Drop refused records from the spool, which makes room."""
        self._refuse_when_closed()
        self._spool.forget_refused([one.id for one in refused])

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise ConfigurationError("the client is closed; make a new one")

    def _running_sender(self) -> Sender:
        with self._lock:
            self._refuse_when_closed()
            if self._sender is None:
                self._sender = self._made_sender()
                self._sender.start()
                self._at_drop = weakref.finalize(self, self._sender.retire)
            return self._sender

    def _made_sender(self) -> Sender:
        """A sender whose thread does not hold this client, so that a dropped client can go."""
        url, api_key, timeout_s, alive = self._url, self._api_key, self._timeout_s, weakref.ref(self)

        def report(refused: Sequence[RefusedRecord]) -> None:
            client = alive()
            if client is not None and client._on_refused is not None:  # noqa: SLF001 - our own
                client._on_refused(refused)  # noqa: SLF001 - the client's own function, called by its own thread

        connect = partial(Connection, url, api_key, timeout_s=timeout_s)
        return Sender(self._spool, connect, self._sending, None if self._on_refused is None else report)

    def after_fork_in_child(self) -> None:
        """Start anew in a forked child; threads, sockets and locks of the parent are of no use here."""
        if self._sender is not None:
            self._sender.abandon_after_fork()
        if self._at_drop is not None:
            self._at_drop.detach()  # the lock of the parent's sender may be taken for ever
            self._at_drop = None
        self._inherited += [self._sender, self._connection]
        self._lock = threading.Lock()
        self._sender = None
        self._connection = self._connect()


def _guard_forks(client: Client) -> None:
    if not hasattr(os, "register_at_fork"):  # a platform without fork
        return
    alive = weakref.ref(client)

    def in_child() -> None:
        if (one := alive()) is not None:
            one.after_fork_in_child()

    os.register_at_fork(after_in_child=in_child)
