"""Builds over many machines, as they travel between planner, queue and workers."""

from datetime import datetime

from wherefrom.records.bounds import Details, Items
from wherefrom.records.flagged import Frozen
from wherefrom.records.leases import Lease


class PlannedPart(Frozen):
    """A part of a build before anybody reads it."""

    number: int
    #: Place of its first row in the corpus, from 0.
    first_row: int
    rows: int
    tokens: int
    #: Hash of the file of its rows, which is the file's name.
    rows_sha256: str


class PartOutput(Frozen):
    """The files of a part that was read, by the hash of their content."""

    shards: Items[str]
    moments: str
    #: What it was read on, as the engine says it; None where it does not.
    read_on: Details | None = None


class ClaimedPart(Frozen):
    """A part that a worker holds."""

    part_id: int
    owner: str
    build_id: int
    attempt: int
    number: int
    first_row: int
    rows: int
    rows_sha256: str

    @property
    def lease(self) -> Lease:
        """The fencing token."""
        return Lease(id=self.part_id, attempt=self.attempt, owner=self.owner)


class SharedBuildRecord(Frozen):
    """One build over many machines."""

    build_id: int
    #: Path or URL of the shared folder.
    store: str
    #: What a worker must know to read parts, as the engine made it.
    plan: Details
    parts: int
    tokens: int
    created_at: datetime


class DeadPart(Frozen):
    """A part that will not be tried again."""

    number: int
    first_row: int
    rows: int
    code: str
    reason: str


class RefusedWorker(Frozen):
    """The last worker that could take no part of a build, and why."""

    worker: str
    code: str
    reason: str
    at: datetime


class BuildProgress(Frozen):
    """Where a build stands."""

    waiting: int
    running: int
    done: int
    dead: int
    tokens_done: int
    #: The first ones.
    dead_parts: Items[DeadPart] = ()
    refused: RefusedWorker | None = None

    @property
    def is_open(self) -> bool:
        """Whether some part waits or is read."""
        return bool(self.waiting or self.running)
