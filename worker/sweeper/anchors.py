"""Anchors: the end of the trail's chain, put outside the database from time to time, so that a tail that was cut off is missed.

Whoever can write the database can compute a whole chain anew; the anchors are what they cannot reach. A sink is a place for them: the file
of the setting `trail_anchor_file`, one line each, and whatever else has `put`.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from db.audit_trail.trail_chain import Link
from wherefrom.errors import ConfigurationError
from wherefrom.journal import journal_folder
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.private import open_private, private_folder
from wherefrom.records import utc_now
from wherefrom.settings import Settings

log = get_logger(__name__)


class AnchorSink(Protocol):
    """A place outside the database that keeps anchors."""

    def put(self, head: Link) -> None:
        """Keep the end of the chain.

        Raises:
            OSError: it could not be kept; the next anchor says more.
        """


@dataclass(frozen=True)
class AnchorFile:
    """One JSON object per line; lines are only ever appended."""

    path: Path

    def put(self, head: Link) -> None:
        """Append a line and hand it to the disk.

        Raises:
            OSError: it could not be written.
        """
        private_folder(self.path.parent)
        line = {"at": utc_now().isoformat(), "sequence": head.sequence, "row_hash": head.row_hash}
        with open_private(self.path, "ab") as file:
            before = b"\n" if _is_torn(self.path) else b""
            file.write(before + json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[int, str]:
        """All anchors by place; empty where there is no file. What a power cut tore is passed over.

        Raises:
            ConfigurationError: the file cannot be read, or two lines say different things of one place.
        """
        try:
            written = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigurationError(
                f"the anchors in {self.path} cannot be read: {error.strerror}"
            ) from error
        found: dict[int, str] = {}
        for line in written.splitlines():
            link = _link_of(line)
            if link is not None and found.setdefault(link.sequence, link.row_hash) != link.row_hash:
                raise ConfigurationError(
                    f"{self.path} has two digests of event {link.sequence}: it was changed by hand, or two databases use it. "
                    "Name the right file with --anchor"
                )
        return found


def _is_torn(path: Path) -> bool:
    """Whether the last line was not written whole."""
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _link_of(line: bytes) -> Link | None:
    try:
        value = json.loads(line)
        return Link(int(value["sequence"]), str(value["row_hash"]))
    except (ValueError, KeyError, TypeError):
        return None


def anchor_file(settings: Settings) -> AnchorFile:
    """The file of the settings."""
    return AnchorFile(settings.trail_anchor_file or journal_folder(settings) / "anchors.jsonl")


class Anchors:
    """Puts the end of the chain into all sinks, at most so often, and only where it moved."""

    def __init__(self, sinks: Sequence[AnchorSink], *, every_s: float, metrics: Metrics) -> None:
        self._sinks, self._every_s, self._metrics = sinks, every_s, metrics
        self._head: Link | None = None
        self._kept: Link | None = None
        self._due_at = float("-inf")

    def saw(self, head: Link | None) -> None:
        """Remember the end of the chain, and keep it where it is time."""
        self._head = head or self._head
        if time.monotonic() >= self._due_at:
            self.keep()

    def keep(self) -> None:
        """Keep the end of the chain now."""
        if self._head is None or self._head == self._kept:
            return
        self._due_at = time.monotonic() + self._every_s
        for sink in self._sinks:
            try:
                sink.put(self._head)
            except OSError as error:
                log.error("anchor_not_kept", sink=type(sink).__name__, reason=str(error))  # noqa: TRY400 - its text says it
                self._metrics.count("trail_anchor_failures_total")
        self._kept = self._head
