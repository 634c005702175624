"""The pass of a corpus through the model, as a build asks for it: here, shard after shard, or by whoever else fills the folder of shards.

A build knows no queue. What reads a corpus on many machines (`worker`) gets the same job, and leaves the same files.
"""

from dataclasses import dataclass
from typing import Protocol

from wherefrom.attribution.bundles.plan import BuildPlan
from wherefrom.attribution.bundles.rendering import OnNote
from wherefrom.attribution.bundles.shards import ShardFolder
from wherefrom.attribution.bundles.tokens import TokenRows
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.progress import Progress

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

    @property
    def tokens(self) -> int:
        """Tokens of the whole corpus."""
        return self.rows.tokens(0, len(self.rows))


class ReadsCorpus(Protocol):
    """Runs a corpus through the model."""

    def __call__(self, job: PassJob) -> None:
        """Fill the folder of shards."""


def read_here(job: PassJob) -> None:
    """Compute every shard that is missing, in this process."""
    rows, shards = job.rows, job.shards
    missing, total = shards.missing(len(rows)), job.tokens
    done = total - sum(shards.tokens(rows, number) for number in missing)
    job.progress(READ_STAGE, done, total)
    for number in missing:
        done += shards.compute(number, rows, job.reader)
        job.progress(READ_STAGE, done, total)
