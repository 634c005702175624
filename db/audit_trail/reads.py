"""Notes whose texts are read: what reads a flagged text for somebody says so here, and the web process journals it before it answers.

A note costs no SQL. Where nobody collects (workers, commands), it goes nowhere. The collector of a request is carried like the ids of a
log; threads that work for the request see the same one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from db.audit_trail.trail import Event, TrailKind, record_events
from db.session import Database


@dataclass
class Reads:
    """Texts that were read for one answer and are not journaled yet."""

    audits: set[int] = field(default_factory=set)
    kind: TrailKind = TrailKind.TEXT_READ
    #: What else the trail gets of an answer that only reads.
    events: list[Event] = field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Something is not journaled yet."""
        return bool(self.audits or self.events)

    def show_nothing(self) -> None:
        """The answer holds no text after all: what was read for it was only looked up."""
        self.audits = set()

    def take(self) -> tuple[list[int], list[Event]]:
        """The audits in order, and the events; they are noted no longer."""
        taken = sorted(self.audits), self.events
        self.audits, self.events = set(), []
        return taken


_READS: ContextVar[Reads | None] = ContextVar("wherefrom_reads", default=None)


@contextmanager
def collecting() -> Iterator[Reads]:
    """Collect what the block reads, in threads that it starts too."""
    reads = Reads()
    before = _READS.set(reads)
    try:
        yield reads
    finally:
        _READS.reset(before)


def note_texts(audit_ids: Iterable[int]) -> None:
    """Somebody is about to be shown the texts of these audits' outputs, whole or in part."""
    reads = _READS.get()
    if reads is not None:
        reads.audits.update(audit_ids)


def note_file() -> None:
    """The texts that are read for this answer leave the service as a file."""
    reads = _READS.get()
    if reads is not None:
        reads.kind = TrailKind.TEXT_EXPORTED


def note_event(db: Database, event: Event) -> None:
    """An event of an answer that only reads: journaled with its reads, so that it needs no database that takes writes; written where nobody collects."""
    reads = _READS.get()
    if reads is not None:
        reads.events.append(event)
        return
    with db.writing() as session:
        record_events(session, [event])
