"""Lets many machines run a corpus through the model: plans its parts into SQL, hints at them until all are read, and brings their files here in order.

A build asks for it in the place of its own pass (`bundles.corpus_pass`). Whatever is stopped goes on: parts that are read stay read, and the same command finds them by their
identity. Files are named by their content and checked when they are fetched; a part whose file is gone or has changed is read again.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from db import signs
from db.audit_trail.trail import TrailKind
from db.bundles import shared_builds
from db.queues.build_queue import BuildQueue
from db.session import Database
from wherefrom.attribution.bundles.corpus_pass import READ_STAGE, PassJob
from wherefrom.attribution.bundles.manifest import ComputeEntry, hash_file
from wherefrom.attribution.bundles.parts import PART_SHARDS, Part, parts_of, read_moments, write_rows
from wherefrom.attribution.bundles.shared_files import SharedFile, delete_shared, fetch_shared, put_shared
from wherefrom.errors import BuildPartsDead, DiskFull, NotStored, TransientError
from wherefrom.records import BuildProgress, PartOutput, PlannedPart, sha256_of_json
from wherefrom.settings import Settings
from wherefrom.storage import open_store

#: Seconds between two looks at a build.
POLL_S = 1.0
#: Without anybody at work for so long, the person who waits is told what to start.
IDLE_S = 30.0
#: Parts whose files are fetched between two looks.
_AT_ONCE = 16
#: Parts whose machines are asked for at once.
_LOOKED_THROUGH = 1000
#: Characters of a build's identity that name its folder.
_FOLDER_CHARS = 16


class HintsAtParts(Protocol):
    """Sends hints; `worker.broker.hints.BuildHintSender` is the real one."""

    def send_for_work(self, pending: Mapping[int, int]) -> int:
        """Hint at so many parts of each build, as far as there is room; how many hints were sent.

        Raises:
            QueueUnavailable: Redis does not answer.
        """


class SharedPass:
    """Reads one corpus on many machines; satisfies `ReadsCorpus`."""

    def __init__(
        self,
        database: Database,
        place: str,
        hints: HintsAtParts,
        *,
        settings: Settings,
        part_shards: int = PART_SHARDS,
        poll_s: float = POLL_S,
    ) -> None:
        """Prepare.

        Args:
            database: Where the parts are planned.
            place: Path or URL of the shared folder; every worker reaches it under the same. The build gets a folder of its own in it.
            hints: Sends hints at parts.
            settings: Attempts of a part.
            part_shards: Shards of a part.
            poll_s: Seconds between two looks.
        """
        self._database, self._place, self._hints = database, place, hints
        self._settings, self._part_shards, self._poll_s = settings, part_shards, poll_s
        self._queue = BuildQueue(database)
        self._pause = threading.Event()
        self._identity, self._store = "", open_store(place)

    def __call__(self, job: PassJob) -> Sequence[ComputeEntry]:
        """Fill the folder of shards; what the parts were read on.

        Raises:
            BuildPartsDead: parts cannot be read; what is read stays.
            NotFound: somebody cancelled the build.
            DiskFull, StorageRefused, DatabaseUnavailable: see there.
        """
        self._identity = sha256_of_json([job.plan.identity(), self._place, self._part_shards])
        self._store = open_store(f"{self._place}/{self._identity[:_FOLDER_CHARS]}")
        parts = parts_of(len(job.rows), self._part_shards)
        if job.shards.missing(len(job.rows)):  # else an earlier run brought everything here
            build_id = self._plan(job, parts)
            job.on_note(
                f"build {build_id}: {len(parts)} parts wait for workers (`python -m worker build-worker`). They go on if this command is stopped; the same command waits for them again"
            )
            _Wait(self, job, parts, build_id).run()
        return self._read_on(parts) or (job.here,)

    def finish(self) -> None:
        """Delete the files of the build and forget it: its bundle is written.

        Raises:
            StorageUnavailable, StorageRefused, DatabaseUnavailable: the build stays among the unfinished ones, by whose id its files can be deleted.
        """
        delete_shared(self._store)
        build_id = shared_builds.find_build(self._database, self._identity)
        if build_id is not None:
            shared_builds.end_build(self._database, build_id, TrailKind.BUILD_FINISHED)

    def look(self, build_id: int) -> BuildProgress:
        """Where the build stands, after taking back what dead workers held."""
        self._queue.release_expired(max_attempts=self._settings.max_attempts)
        return shared_builds.progress_of(self._database, build_id)

    def alive(self) -> int:
        """Build workers that gave a sign lately."""
        return signs.alive(self._database)["build"]

    def hint(self, build_id: int, parts: int) -> None:
        """Tell workers that so many parts wait."""
        if parts:
            self._hints.send_for_work({build_id: parts})

    def outputs(self, build_id: int, *, first: int) -> dict[int, PartOutput]:
        """The files of the next parts that are read, as far as there is no gap."""
        found = shared_builds.outputs_of(self._database, build_id, first=first, limit=_AT_ONCE)
        return {number: one for place, (number, one) in enumerate(found.items()) if number == first + place}

    def read_again(self, build_id: int, number: int) -> None:
        """Put a part back whose files are not what they were."""
        shared_builds.read_again(self._database, build_id, [number])

    def fetch(self, kind: SharedFile, sha256: str, *, to: Path) -> None:
        """Bring a file here, unless it is here."""
        if not (to.is_file() and hash_file(to).sha256 == sha256):
            fetch_shared(self._store, kind, sha256, to=to)

    def pause(self) -> None:
        """Wait until the next look."""
        self._pause.wait(self._poll_s)

    def _read_on(self, parts: list[Part]) -> Sequence[ComputeEntry]:
        """What read the rows, as far as the workers said so, what read most of them first."""
        build_id = shared_builds.find_build(self._database, self._identity)
        if build_id is None:
            return []
        rows: Counter[ComputeEntry] = Counter()
        for first in range(0, len(parts), _LOOKED_THROUGH):
            found = shared_builds.outputs_of(self._database, build_id, first=first, limit=_LOOKED_THROUGH)
            for number, output in found.items():
                if output.read_on is not None:
                    rows[ComputeEntry.model_validate(output.read_on)] += parts[number].rows
        return [one for one, _ in rows.most_common()]

    def _plan(self, job: PassJob, parts: list[Part]) -> int:
        known = frozenset(self._store.names(f"{SharedFile.ROWS}/"))
        planned = []
        with tempfile.TemporaryDirectory(prefix="wherefrom-plan-") as folder:
            for part in parts:
                job.progress("plan (parts)", part.number, len(parts))
                rows = job.rows[part.first : part.first + part.rows]
                file = Path(folder) / "rows.npz"
                write_rows(file, rows)
                planned.append(
                    PlannedPart(
                        number=part.number,
                        first_row=part.first,
                        rows=part.rows,
                        tokens=job.rows.tokens(part.first, part.first + part.rows),
                        rows_sha256=put_shared(self._store, SharedFile.ROWS, file, known=known),
                    )
                )
        job.progress("plan (parts)", len(parts), len(parts))
        return shared_builds.plan_build(
            self._database,
            identity=self._identity,
            store=self._store.url,
            plan=job.plan.model_dump(mode="json"),
            parts=planned,
        )


class _Wait:
    """The wait for one build."""

    def __init__(
        self,
        shared: SharedPass,
        job: PassJob,
        parts: list[Part],
        build_id: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared, self._job, self._parts, self._build_id = shared, job, parts, build_id
        self._clock = clock
        self._news = _News(job, shared.alive, clock)
        #: The next part to be brought here: sums are made in the order of the rows.
        self._next = 0

    def run(self) -> None:
        """Wait until all parts are here.

        Raises:
            BuildPartsDead: some will never be.
        """
        self._job.shards.forget_sums()
        while self._next < len(self._parts):
            with self._news.absences():
                now = self._shared.look(self._build_id)
                self._job.progress(READ_STAGE, now.tokens_done, self._job.tokens)
                self._news.tell(now)
                brought = self._bring()
                if now.dead and not (now.is_open or brought):
                    raise BuildPartsDead(_dead_text(now, len(self._parts)))
                self._shared.hint(self._build_id, now.waiting)  # last: nothing else needs Redis
                if brought:
                    continue
            self._shared.pause()
        self._job.progress(READ_STAGE, self._job.tokens, self._job.tokens)

    def _bring(self) -> bool:
        """Fetch the next parts; whether there were any."""
        found = self._shared.outputs(self._build_id, first=self._next)
        for number, output in found.items():
            try:
                self._take(self._parts[number], output)
            except NotStored as error:
                self._job.on_note(f"part {number + 1} is read again: {error}")
                self._shared.read_again(self._build_id, number)
                return True
            self._next = number + 1
        return bool(found)

    def _take(self, part: Part, output: PartOutput) -> None:
        shards = self._job.shards
        for number, sha256 in zip(part.shards, output.shards, strict=True):
            self._shared.fetch(SharedFile.SHARDS, sha256, to=shards.path(number))
        with tempfile.TemporaryDirectory(prefix="wherefrom-moments-") as folder:
            file = Path(folder) / "moments.npz"
            self._shared.fetch(SharedFile.MOMENTS, output.moments, to=file)
            shards.take_moments(read_moments([file]), shards=len(part.shards))


class _News:
    """Tells the person who waits what is new, once."""

    def __init__(self, job: PassJob, alive: Callable[[], int], clock: Callable[[], float]) -> None:
        self._on_note, self._alive, self._clock = job.on_note, alive, clock
        self._dead: set[int] = set()
        self._refused: set[tuple[str, str, str]] = set()
        self._away: str | None = None
        self._busy_at = clock()

    def tell(self, now: BuildProgress) -> None:
        """Dead parts, workers that refused, and that nobody works."""
        for one in now.dead_parts:
            if one.number not in self._dead:
                self._dead.add(one.number)
                self._on_note(f"part {one.number + 1} cannot be read [{one.code}]: {one.reason}")
        if now.refused is not None:
            worker, code, reason = said = now.refused.worker, now.refused.code, now.refused.reason
            if said not in self._refused:  # a worker looks again every half a minute
                self._refused.add(said)
                self._on_note(f"worker {worker} takes no part [{code}]: {reason}")
        if now.running or not now.waiting:
            self._busy_at = self._clock()
        elif self._clock() - self._busy_at >= IDLE_S:
            self._busy_at = self._clock()
            self._on_note(f"{now.waiting} parts wait and no worker has one: {self._advice()}")

    def _advice(self) -> str:
        if alive := self._alive():
            return f"{alive} build workers are alive; they load the model first"
        return "start `python -m worker build-worker` on machines that have the model, this database, this Redis and the shared folder"

    @contextmanager
    def absences(self) -> Iterator[None]:
        """What is away is told once, and waited for; a full disk is not."""
        try:
            yield
        except DiskFull:
            raise
        except TransientError as error:
            if error.code != self._away:
                self._away = error.code
                self._on_note(f"waiting [{error.code}]: {error}")
        else:
            self._away = None


def _dead_text(now: BuildProgress, parts: int) -> str:
    named = "; ".join(
        f"part {one.number + 1} (rows {one.first_row + 1} to {one.first_row + one.rows}) [{one.code}]: {one.reason}"
        for one in now.dead_parts
    )
    more = f"; and {now.dead - len(now.dead_parts)} more" if now.dead > len(now.dead_parts) else ""
    return f"{now.dead} of {parts} parts cannot be read: {named}{more}. The other {now.done} are kept: mend the cause and run the same command again"
