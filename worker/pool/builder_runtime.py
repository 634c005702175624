"""What one building process holds: the queue of parts, and the model of the build in use."""

from typing import Unpack

from db.bundles import shared_builds
from db.queues.build_queue import BuildQueue
from wherefrom.attribution.interface import BuildingEngine, PartReader
from wherefrom.errors import BuildMismatch, DatabaseUnavailable, OutOfMemory, PermanentError
from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from wherefrom.storage import Store, open_store
from worker.pool.process_runtime import ProcessParts, ProcessRuntime
from worker.pool.refusals import Refusals

log = get_logger(__name__)


class BuilderRuntime(ProcessRuntime):
    """Everything that the building task of one pool process needs; satisfies `tasks.build_part.BuildRuntime`.

    It keeps the model of one build: two at once may not fit.
    """

    def __init__(self, settings: Settings, **parts: Unpack[ProcessParts]) -> None:
        super().__init__(settings, **parts)
        self.queue = BuildQueue(self._database)
        self._open: tuple[int, PartReader, Store] | None = None
        self._refusals = Refusals[PermanentError | OutOfMemory]()

    def opened(self, build_id: int) -> tuple[PartReader, Store]:
        """What reads the parts of a build, and its shared folder; the build before makes room. A refused one is refused again for a while without looking."""
        if (refusal := self._refusals.of(build_id, now=self.clock())) is not None:
            raise refusal
        if self._open is None or self._open[0] != build_id:
            self._open = None
            build = shared_builds.read_build(self._database, build_id)
            if not isinstance(self._engine, BuildingEngine):
                raise BuildMismatch("the engine of this worker builds no bundles")
            store, started = open_store(build.store), self.clock()
            self._open = (build_id, self._engine.open_part_reader(build.plan), store)
            log.info("build_opened", build=build_id, seconds=round(self.clock() - started, 3))
        return self._open[1], self._open[2]

    def refuse(self, build_id: int, error: PermanentError | OutOfMemory) -> None:
        """Tell whoever waits for the build; once, until it is looked at again."""
        if self._refusals.of(build_id, now=self.clock()) is not None:
            return
        self._refusals.note(build_id, error, now=self.clock())
        try:
            shared_builds.refuse(
                self._database, build_id, worker=self.owner, code=error.code, reason=str(error)
            )
        except DatabaseUnavailable as away:
            log.warning("refusal_not_told", code=away.code, reason=str(away))

    def close(self) -> None:
        """Let go of the model and of the database's connections."""
        self._open = None
        super().close()
