"""What one process of the service holds: settings, database, attributors over bundles.

Nothing is made at import. A pool process builds its `Runtime` when it has started (`worker.app`), so no connection and no
model ever crosses a process boundary.
"""

import threading
import time
from collections import OrderedDict

from db import catalogue
from db.audit_queue import AuditQueue
from db.session import Database
from tasks.attribute import Clock
from wherefrom.attribution.interface import Attributor, Engine
from wherefrom.errors import PermanentError, TransientError
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from worker.hints import HintSender
from worker.liveness import loading_file, refusal_file
from worker.owners import owner_name
from worker.verify import refuse_bundle

log = get_logger(__name__)

#: Engines kept in one process: the bundle in use, and the one before it while both have work.
LOADED_BUNDLES = 2
#: Seconds until a refused bundle is looked at again.
REFUSED_S = 30.0


class Runtime:
    """Everything that the tasks of one pool process need; satisfies `tasks.hint.BatchRuntime`."""

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        hints: HintSender,
        metrics: Metrics,
        engine: Engine,
        owner: str | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.store = AuditQueue(database)
        self.owner = owner or owner_name()
        self.clock: Clock = time.monotonic
        self._database = database
        self._hints = hints
        self._engine = engine
        self._loaded: OrderedDict[int, Attributor] = OrderedDict()
        self._loading = threading.Lock()
        self._refused: dict[int, tuple[float, PermanentError]] = {}

    def has_loaded(self, bundle_id: int) -> bool:
        """Whether the engine over a bundle is loaded."""
        return bundle_id in self._loaded

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
            until, refusal = self._refused.get(bundle_id, (0.0, None))
            if refusal is not None and self.clock() < until:
                raise refusal
            bundle = catalogue.bundle_by_id(self._database, bundle_id)  # before anything is written about it
            try:
                self._load(bundle)
            except PermanentError as error:
                self._refused[bundle_id] = (self.clock() + REFUSED_S, error)
                refuse_bundle(self._database, self.settings, bundle_id, error)
                raise
            refusal_file(self.settings, bundle_id).remove()
        self._loaded.move_to_end(bundle_id)
        return self._loaded[bundle_id]

    def _load(self, bundle: BundleInfo) -> None:
        while len(self._loaded) >= LOADED_BUNDLES:
            self._loaded.popitem(last=False)
        started = self.clock()
        loading = loading_file(self.settings, bundle.id)
        loading.beat(bundle=bundle.name)
        try:
            self._loaded[bundle.id] = self._engine.open_attributor(bundle)
        finally:
            loading.remove()
        log.info("bundle_loaded", bundle=bundle.name, seconds=round(self.clock() - started, 3))

    def send_hint(self, bundle_id: int) -> None:
        """Pass the hint on."""
        self._hints.pass_on(bundle_id)

    def close(self) -> None:
        """Let go of the engines and of the database's connections."""
        self._loaded.clear()
        self._database.dispose()
