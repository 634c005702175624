"""The sweeper: takes back the leases of dead workers, and keeps hints on the queue while there is work.

With it, nothing depends on a hint: SQL says what is pending, and an empty or lost queue fills itself again.
"""

from db import claims, measurements
from db.session import Database
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.hints import HintSender

log = get_logger(__name__)


class Sweeper:
    """One sweeper; several at once are harmless."""

    def __init__(
        self, database: Database, hints: HintSender, *, settings: Settings, metrics: Metrics
    ) -> None:
        self._database = database
        self._hints = hints
        self._settings = settings
        self._metrics = metrics

    def step(self) -> None:
        """One round.

        Raises:
            DatabaseUnavailable: nothing was swept.
            QueueUnavailable: leases were taken back, hints were not sent.
        """
        expired = claims.release_expired(self._database, max_attempts=self._settings.max_attempts)
        if expired:
            log.warning("leases_expired", audits=expired)
            self._metrics.count("leases_expired_total", expired)
        lost = measurements.release_expired_measurements(
            self._database, max_attempts=self._settings.max_attempts
        )
        if lost:
            log.warning("leases_expired", measurements=lost)
            self._metrics.count("leases_expired_total", lost)
        if self._settings.recipe is not None:
            self._hints.send_for_measurements(measurements.pending_measurements(self._database))
        sent = self._hints.send_for_work(claims.pending_counts(self._database))
        if sent:
            log.debug("hints_sent", hints=sent)
