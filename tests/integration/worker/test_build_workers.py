"""Three real build workers: two are killed at work, and every part is read as if nothing had happened."""

import os
import threading
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import redis
from sqlalchemy import select

from db import signs
from db.models import BuildPart
from db.session import Database
from tests import part_engine
from tests.integration.worker.conftest import Parts
from tests.integration.worker.processes import kill_group_at_work, running
from tests.part_engine import SHARD_ROWS, LightPartReader
from tests.waiting import wait_until
from wherefrom.attribution.bundles.corpus_pass import PassJob
from wherefrom.attribution.bundles.manifest import ComputeEntry
from wherefrom.attribution.bundles.parts import write_rows
from wherefrom.attribution.bundles.shards import ShardFolder
from wherefrom.attribution.bundles.tokens import TokenRows, write_token_rows
from wherefrom.attribution.models.render import TokenRow
from wherefrom.records import Frozen, MeasurementState, sha256_of_json
from wherefrom.settings import Settings
from worker.broker.hints import BuildHintSender
from worker.shared_pass import SharedPass

pytestmark = pytest.mark.redis

PARTS = 12


class LightPlan(Frozen):
    """A plan for the engine of the tests."""

    model: str = "ours"
    #: Of one pass: long enough for a worker to be killed within it.
    seconds: float = 0.3

    def identity(self) -> str:
        """Its hash."""
        return sha256_of_json(self.model_dump())


def rows() -> list[TokenRow]:
    """A corpus of short rows."""
    return [TokenRow((number, 1, 2), 1, (True, True)) for number in range(PARTS * SHARD_ROWS)]


def job_over(folder: Path) -> PassJob:
    """What is to be read, into a folder."""
    write_token_rows(folder, rows())
    return PassJob(
        TokenRows(folder),
        LightPlan(),  # type: ignore[arg-type]  # the engine of the tests reads another plan
        None,  # type: ignore[arg-type]  # nobody reads in this process
        ShardFolder(folder),
        progress=lambda *_: None,
        on_note=lambda _: None,
        here=ComputeEntry(device="cpu", dtype="float32"),
    )


def held_by_group(database: Database, group: int) -> int:
    """Parts that a process of this group holds."""
    running_parts = select(BuildPart.lease_owner).where(BuildPart.state == MeasurementState.RUNNING)
    with database.reading() as session:
        owners = session.scalars(running_parts).all()
    found = 0
    for owner in owners:
        with suppress(ProcessLookupError):
            found += os.getpgid(int(str(owner).split(":")[1])) == group
    return found


@pytest.mark.parametrize(
    "database_url", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
def test_two_of_three_workers_are_killed_at_work(
    settings: Settings, parts: Parts, client: redis.Redis, tmp_path: Path
) -> None:
    """SIGKILL for one worker after the other in the middle of a part: the third reads what they held, and every file and sum is as one machine makes it."""
    settings = settings.model_copy(update={"engine": part_engine.ENGINE})
    hints = BuildHintSender(parts.celery, client, settings=settings, metrics=parts.metrics, sender="operator")
    shared = SharedPass(
        parts.database, str(tmp_path / "shared"), hints, settings=settings, part_shards=1, poll_s=0.05
    )
    job = job_over(tmp_path / "raw")
    waiting = threading.Thread(target=shared, args=(job,))
    with ExitStack() as stack:
        workers = [
            stack.enter_context(running(settings, "build-worker", log=tmp_path / f"{number}.log"))
            for number in range(3)
        ]
        wait_until(lambda: signs.alive(parts.database)["build"] == len(workers), 60, "three workers")
        waiting.start()
        for worker in workers[:2]:
            kill_group_at_work(worker, partial(held_by_group, parts.database, worker.pid))
        waiting.join(timeout=90)
        assert not waiting.is_alive()
    with parts.database.reading() as session:
        attempts = list(session.scalars(select(BuildPart.attempt)))
    assert sorted(attempts) == [1] * (PARTS - 2) + [2, 2]
    check_files(job, tmp_path)
    shared.finish()
    assert not (tmp_path / "shared").exists()


def check_files(job: PassJob, folder: Path) -> None:
    """The shards and the sums are those of one process."""
    reader, total = LightPartReader({}), np.zeros((1, 3, 3))
    for number in range(PARTS):
        own = folder / f"own-{number}"
        own.mkdir()
        first = number * SHARD_ROWS
        write_rows(own / "rows.npz", job.rows[first : first + SHARD_ROWS])
        made = reader.read_part(own / "rows.npz", first=first, folder=own, keep_going=lambda: None)
        assert job.shards.path(number).read_bytes() == made.shards[0].read_bytes()
        with np.load(made.moments, allow_pickle=False) as stored:
            total += stored["a"][0]
    assert job.shards.missing(len(job.rows)) == []
    np.testing.assert_array_equal(job.shards.moments().a, total)
