"""What one measuring process holds: the queue of measurements, the meter of the bundle in use."""

from typing import Unpack

from db.bundles import catalogue
from db.queues.measurement_queue import MeasurementQueue
from wherefrom.attribution.interface import EffectMeter
from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from worker.pool.process_runtime import ProcessParts, ProcessRuntime

log = get_logger(__name__)


class MeasurerRuntime(ProcessRuntime):
    """Everything that the measuring task of one pool process needs; satisfies `tasks.measure.MeasureRuntime`.

    It keeps the meter of one bundle: two models at once may not fit.
    """

    def __init__(self, settings: Settings, **parts: Unpack[ProcessParts]) -> None:
        super().__init__(settings, **parts)
        self.queue = MeasurementQueue(self._database)
        self._open: tuple[int, EffectMeter] | None = None

    def meter(self, bundle_id: int) -> EffectMeter:
        """The meter over a bundle; the one before it makes room."""
        if self._open is None or self._open[0] != bundle_id:
            self._open = None
            bundle = catalogue.bundle_by_id(self._database, bundle_id)
            self._open = (bundle_id, self._engine.open_meter(bundle))
            log.info("meter_opened", bundle=bundle.name)
        return self._open[1]

    def close(self) -> None:
        """Let go of the meter and of the database's connections."""
        self._open = None
        super().close()
