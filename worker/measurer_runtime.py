"""What one measuring process holds: settings, database, the meter of the bundle in use.

As with `worker.runtime`, nothing is made at import, and no model crosses a process boundary.
"""

import time

from db import catalogue
from db.measurement_queue import MeasurementQueue
from db.session import Database
from tasks.attribute import Clock
from wherefrom.attribution.interface import EffectMeter, Engine
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.hints import MeasureHintSender
from worker.owners import owner_name

log = get_logger(__name__)


class MeasurerRuntime:
    """Everything that the measuring task of one pool process needs; satisfies `tasks.measure.MeasureRuntime`.

    It keeps the meter of one bundle: two models at once may not fit.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        hints: MeasureHintSender,
        metrics: Metrics,
        engine: Engine,
        owner: str | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.queue = MeasurementQueue(database)
        self._database = database
        self.owner = owner or owner_name()
        self.clock: Clock = time.monotonic
        self._hints = hints
        self._engine = engine
        self._open: tuple[int, EffectMeter] | None = None

    def meter(self, bundle_id: int) -> EffectMeter:
        """The meter over a bundle; the one before it makes room."""
        if self._open is None or self._open[0] != bundle_id:
            self._open = None
            bundle = catalogue.bundle_by_id(self._database, bundle_id)
            self._open = (bundle_id, self._engine.open_meter(bundle))
            log.info("meter_opened", bundle=bundle.name)
        return self._open[1]

    def send_hint(self, bundle_id: int) -> None:
        """Pass the hint on."""
        self._hints.pass_on(bundle_id)

    def close(self) -> None:
        """Let go of the meter and of the database's connections."""
        self._open = None
        self._database.dispose()
