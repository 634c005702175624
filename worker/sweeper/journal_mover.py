"""Moves the reads that web processes of this machine journaled into the trail: each line once, whoever moves it and however often it is tried.

The trail takes a line's id once, so two movers at once are harmless, and so is one that dies between its commit and the removal of the file.
While the database takes no writes (a standby, a failover), the lines stay where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from db.models import TrailEvent
from db.session import Database
from db.statements import insert_new
from wherefrom.journal import Line, files_of, reading
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics

log = get_logger(__name__)

#: Lines that are moved in one transaction.
AT_ONCE = 1000


@dataclass(frozen=True)
class _Moved:
    """How far a file was moved."""

    #: Bytes from its beginning.
    end: int = 0
    #: Lines among them that cannot be read.
    damaged: int = 0


class JournalMover:
    """Moves the lines of one folder; remembers how far it came in files that are still written to."""

    def __init__(self, database: Database, folder: Path, *, metrics: Metrics) -> None:
        self._database, self._folder, self._metrics = database, folder, metrics
        self._moved: dict[Path, _Moved] = {}

    def step(self) -> int:
        """Move what is there now; how many lines.

        Raises:
            DatabaseUnavailable, DatabaseReadOnly: what is not moved stays in its file.
            OSError: a file cannot be read or removed.
        """
        there = files_of(self._folder)
        self._moved = {file: moved for file, moved in self._moved.items() if file in there}
        return sum(map(self._move, there))

    def _move(self, file: Path) -> int:
        before = self._moved.get(file, _Moved())
        with reading(file, before.end) as part:
            if part is None:
                return 0
            self._insert(part.lines)
            self._moved[file] = now = _Moved(part.end, before.damaged + part.damaged)
            if part.finished:
                self._put_away(file, now.damaged)
        return len(part.lines)

    def _insert(self, lines: Sequence[Line]) -> None:
        for start in range(0, len(lines), AT_ONCE):
            with self._database.writing() as session:
                _insert_lines(session, lines[start : start + AT_ONCE])
        if lines:
            self._metrics.count("trail_reads_moved_total", len(lines))

    def _put_away(self, file: Path, damaged: int) -> None:
        self._moved.pop(file, None)
        if not damaged:
            file.unlink(missing_ok=True)
            return
        log.error("journal_damaged", file=str(file), lines=damaged)
        self._metrics.count("trail_reads_damaged_total", damaged)
        file.rename(file.with_name(f"{file.name}.damaged"))


def _insert_lines(session: Session, lines: Sequence[Line]) -> None:
    rows = [
        {
            "at": one.at,
            "kind": one.kind,
            "subject": one.subject,
            "payload": one.payload,
            "actor": one.actor,
            "journal_id": one.id,
        }
        for one in lines
    ]
    session.execute(insert_new(session, TrailEvent), rows)
