"""What one attributing process holds: the queue of audits, attributors over bundles."""

import gc
import threading
from collections import OrderedDict
from typing import Unpack

from db.bundles import catalogue
from db.queues.audit_queue import AuditQueue
from db.queues.what_if_queue import WhatIfQueue
from wherefrom.attribution.interface import Attributor
from wherefrom.errors import OutOfMemory, PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from worker.bundle_homes import drop_erased_copies
from worker.pool.process_runtime import ProcessParts, ProcessRuntime
from worker.pool.refusals import Refusals
from worker.pool.verify import refuse_bundle
from worker.vitals.liveness import loading_file, refusal_file

log = get_logger(__name__)

#: Engines kept in one process: the bundle in use, and the one before it while both have work.
LOADED_BUNDLES = 2


class Runtime(ProcessRuntime):
    """Everything that the tasks of one pool process need; satisfies `tasks.hint.BatchRuntime`."""

    def __init__(self, settings: Settings, **parts: Unpack[ProcessParts]) -> None:
        super().__init__(settings, **parts)
        self.store = AuditQueue(self._database)
        self.what_ifs = WhatIfQueue(self._database)
        self._loaded: OrderedDict[int, Attributor] = OrderedDict()
        self._loading = threading.Lock()
        self._refusals = Refusals[PermanentError]()

    def has_loaded(self, bundle_id: int) -> bool:
        """Whether the engine over a bundle is loaded."""
        return bundle_id in self._loaded

    def has_refused(self, bundle_id: int) -> bool:
        """Whether a bundle is refused without another look; it was told when it was looked at."""
        return self._refusals.of(bundle_id, now=self.clock()) is not None

    def loaded_bundles(self) -> tuple[int, ...]:
        """Ids of the bundles whose engines are loaded."""
        return tuple(self._loaded)

    def attributor(self, bundle_id: int) -> Attributor:
        """The engine over a bundle, loaded when first asked for; the least recently used one makes room.

        A bundle that was refused is refused again for a while without looking: loading a model with every hint would keep
        this process from the bundles that work. Its pending audits say why they wait.
        """
        with self._loading:
            return self._attributor(bundle_id)

    def preload(self) -> None:
        """Load the newest active bundles before the first hint asks for them; what cannot be loaded is told then.

        Meant for a thread of its own: the pool gives a process seconds to start, a model may take longer.
        """
        try:
            bundles = catalogue.active_bundles(self._database)[:LOADED_BUNDLES]
        except TransientError as error:
            log.info("bundle_not_preloaded", code=error.code, reason=str(error))
            return
        for bundle in bundles:
            try:
                self.attributor(bundle.id)
            except (PermanentError, TransientError) as error:
                log.info("bundle_not_preloaded", bundle=bundle.name, code=error.code, reason=str(error))

    def _attributor(self, bundle_id: int) -> Attributor:
        if bundle_id not in self._loaded:
            if (refusal := self._refusals.of(bundle_id, now=self.clock())) is not None:
                raise refusal
            bundle = catalogue.bundle_by_id(self._database, bundle_id)  # before anything is written about it
            try:
                self._load(bundle)
            except PermanentError as error:
                self._refusals.note(bundle_id, error, now=self.clock())
                refuse_bundle(self._database, self.settings, bundle_id, error)
                raise
            refusal_file(self.settings, bundle_id).remove()
        self._loaded.move_to_end(bundle_id)
        return self._loaded[bundle_id]

    def _load(self, bundle: BundleInfo) -> None:
        while len(self._loaded) >= LOADED_BUNDLES:
            self._loaded.popitem(last=False)
        drop_erased_copies(self._database, self.settings)
        started = self.clock()
        loading = loading_file(self.settings, bundle.id)
        loading.beat(bundle=bundle.name)
        try:
            self._loaded[bundle.id] = self._open(bundle)
        finally:
            loading.remove()
        log.info("bundle_loaded", bundle=bundle.name, seconds=round(self.clock() - started, 3))

    def _open(self, bundle: BundleInfo) -> Attributor:
        """The engine over a bundle; where it does not fit beside the others, which may hold most of a GPU, these make room."""
        try:
            return self._engine.open_attributor(bundle)
        except OutOfMemory:
            if not self._loaded:
                raise
        log.warning("engines_made_room", bundle=bundle.name, count=len(self._loaded))
        self._loaded.clear()
        gc.collect()  # models hold cycles, and their memory is wanted now
        return self._engine.open_attributor(bundle)

    def close(self) -> None:
        """Let go of the engines and of the database's connections."""
        self._loaded.clear()
        super().close()
