"""The sweeper: takes back the leases of dead workers, keeps hints on the queue while there is work, and does what comes round by time.

That is: outputs are grouped into findings, review queues are filled by their rules, texts are indexed, large listings are worked out. With it, nothing depends on a hint: SQL says what is pending, and an empty or lost queue fills itself again.
"""

from datetime import datetime

from db.bundles import routing
from db.comparison import comparisons
from db.queues.audit_queue import AuditQueue
from db.queues.measurement_queue import MeasurementQueue
from db.queues.what_if_queue import WhatIfQueue
from db.reading import listings, source_facts
from db.reviewing import review_queues
from db.session import Database
from db.storing import search
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.broker.hints import HintSender, MeasureHintSender
from worker.sweeper.finding import group_outputs

log = get_logger(__name__)

#: Rounds between two looks for audits without a bundle whose model has one: an activation that was cut off left them. It reads all of them.
UNROUTED_ROUNDS = 60
#: Rounds between two looks for audits that the rules of review queues let in.
QUEUE_ROUNDS = 5


class Sweeper:
    """One sweeper; several at once are harmless."""

    def __init__(
        self,
        database: Database,
        hints: HintSender,
        *,
        measure_hints: MeasureHintSender,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._audits, self._measurements = AuditQueue(database), MeasurementQueue(database)
        self._what_ifs = WhatIfQueue(database)
        self._queues = (self._audits, self._measurements, self._measurements.groups, self._what_ifs)
        self._hints, self._measure_hints = hints, measure_hints
        self._settings = settings
        self._metrics = metrics
        #: The database's clock at the last round; None before the first.
        self._last_round_at: datetime | None = None
        self._database = database
        self._round = 0
        self._listings, self._sources = listings.rounds(database), source_facts.rounds(database)

    def step(self) -> None:
        """One round.

        Raises:
            DatabaseUnavailable: nothing was swept.
            QueueUnavailable: leases were taken back, hints were not sent.
        """
        self._mend_times()
        for queue in self._queues:
            expired = queue.release_expired(max_attempts=self._settings.max_attempts)
            if expired:
                log.warning("leases_expired", of=queue.subject, leases=expired)
                self._metrics.count("leases_expired_total", expired)
        self._route()
        if self._settings.recipe is not None:
            enough = self._measure_hints.enough_rows
            self._measure_hints.send_for_work(self._measurements.pending_counts(at_most=enough))
        sent = self._hints.send_for_work(self._attributing())
        if sent:
            log.debug("hints_sent", hints=sent)
        self._know_lists()

    def _know_lists(self) -> None:
        """Index texts that the search does not know, work out large listings, counts of sources and comparisons that somebody waits for, and group outputs."""
        if indexed := search.index_missing(self._database):
            log.debug("texts_indexed", texts=indexed)
        if listed := self._listings.go_on():
            log.debug("listings_worked_out", listings=listed)
        if self._sources.go_on():
            log.debug("sources_counted")
        if compared := comparisons.refresh(self._database):
            log.debug("comparisons_worked_out", comparisons=compared)
        if self._round % QUEUE_ROUNDS == 1:  # `_route` counted this round already
            group_outputs(self._database)

    def _attributing(self) -> dict[int, int]:
        """Audits and what-ifs that could be claimed now, by bundle id, up to as many of each as are worth a hint."""
        enough = self._hints.enough_rows
        counts = self._audits.pending_counts(at_most=enough)
        for bundle_id, number in self._what_ifs.pending_counts(at_most=enough).items():
            counts[bundle_id] = counts.get(bundle_id, 0) + number
        return counts

    def _mend_times(self) -> None:
        """Cap what a clock that was set back made too late: leases always, waits when that may have happened."""
        now = self._audits.now()
        went_back = self._last_round_at is None or now < self._last_round_at
        self._last_round_at = now
        for queue in self._queues:
            leases = queue.cap_leases(lease_s=self._settings.lease_seconds)
            waits = queue.cap_waits(wait_s=self._settings.backoff_cap_seconds) if went_back else 0
            if leases or waits:
                log.warning("times_capped", of=queue.subject, leases=leases, waits=waits)

    def _route(self) -> None:
        """Move audits that wait for a retired bundle: their lease ran out, or an activation was cut off."""
        moved = routing.move_waiting(self._database)
        if self._round % UNROUTED_ROUNDS == 0:
            moved += routing.queue_unrouted(self._database)
        if self._round % QUEUE_ROUNDS == 0 and (entered := review_queues.fill_all(self._database)):
            log.info("review_queues_filled", audits=entered)
        self._round += 1
        if moved != routing.Moved():
            log.info("audits_moved", queued=moved.queued, without_bundle=moved.without_bundle)
