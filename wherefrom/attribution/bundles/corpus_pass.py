"""The pass of a corpus through the model, as a build asks for it: here, shard after shard, or by whoever else fills the folder of shards.

A build knows no queue. What reads a corpus on many machines (`worker`) gets the same job, and leaves the same files.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from wherefrom.attribution.bundles.manifest import ComputeEntry
from wherefrom.attribution.bundles.plan import BuildPlan
from wherefrom.attribution.bundles.rendering import OnNote
from wherefrom.attribution.bundles.shards import ShardFolder, read_rows
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.progress import Progress
from wherefrom.attribution.retrieval.index import evenly

#: The stage, as progress tells it.
READ_STAGE = "read signals (tokens)"


@dataclass(frozen=True)
class PassJob:
    """One corpus to be read."""

    #: The corpus as tokens, in its order.
    rows: TokenRows
    #: What is read, by which model: all that another machine needs.
    plan: BuildPlan
    reader: ReadsSignals
    #: Gets the shards and their second moments; what it holds already is not read again.
    shards: ShardFolder
    progress: Progress
    on_note: OnNote
    #: What this process computes on.
    here: ComputeEntry

    @property
    def tokens(self) -> int:
        """Tokens of the whole corpus."""
        return self.rows.tokens(0, len(self.rows))


class ReadsCorpus(Protocol):
    """Runs a corpus through the model."""

    def __call__(self, job: PassJob) -> Sequence[ComputeEntry]:
        """Fill the folder of shards.

        Returns:
            What the rows were read on, what read most of them first.
        """


def read_here(job: PassJob) -> Sequence[ComputeEntry]:
    """Compute every shard that is missing, in this process."""
    rows, shards = job.rows, job.shards
    missing, total = shards.missing(len(rows)), job.tokens
    done = total - sum(shards.tokens(rows, number) for number in missing)
    job.progress(READ_STAGE, done, total)
    for number in missing:
        done += shards.compute(number, rows, job.reader)
        job.progress(READ_STAGE, done, total)
    return (job.here,)


def seconds_to_read(count: int, job: PassJob) -> float:
    """How long this process takes to read so many rows, evenly spaced. The pass does not tell: it may have gone on from an earlier run, or have been other machines' work."""
    rows = job.rows.read([int(row) for row in evenly(len(job.rows), count)])
    started = time.monotonic()
    read_rows(rows, job.reader)
    return time.monotonic() - started
