"""The gauges of `/metrics`: read from database, Redis and disk when somebody scrapes. What cannot be read is no number (NaN), so that an alert can tell it from zero."""

import shutil
from collections.abc import Callable

from db import signs
from db.audit_trail import trail_chain
from db.bundles import shared_builds
from db.erasure import erasures, retention
from db.measuring import measurements
from db.notices import outbox
from db.reading import reader
from web.services import Services
from wherefrom.errors import DatabaseUnavailable, QueueUnavailable
from wherefrom.journal import journal_folder, size_of
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, DeliveryState, MeasurementState

_NOTHING = float("nan")
#: Gauges that need the database, each with its label and the values of that.
_STORED: dict[str, tuple[str, tuple[str, ...]]] = {
    "oldest_pending_seconds": ("", ()),
    "expired_leases": ("", ()),
    "trail_lag_seconds": ("", ()),
    "erasure_lag_seconds": ("", ()),
    "retention_lag_seconds": ("", ()),
    "erased_texts": ("kind", erasures.KINDS),
    "audits": ("state", tuple(AuditState)),
    "measurements": ("state", tuple(MeasurementState)),
    "build_parts": ("state", tuple(MeasurementState)),
    "webhook_deliveries": ("state", (DeliveryState.PENDING, DeliveryState.DEAD)),
    "processes": ("role", signs.ROLES),
}


def read_gauges(services: Services) -> None:
    """Set every gauge."""
    metrics = services.metrics
    try:
        _read_database(services)
    except DatabaseUnavailable:
        # Counters of this process are worth scraping while the database is away.
        _know_nothing(metrics)
    _read_queue(metrics, "stream_entries", services.queue.stream_entries)
    _read_queue(metrics, "quarantine_entries", services.queue.quarantined_entries)
    _read_queue(metrics, "hints_queued", services.queue.hints)
    metrics.gauge("trail_journal_bytes", size_of(journal_folder(services.settings)))
    folder = services.settings.state_dir
    metrics.gauge("state_free_bytes", shutil.disk_usage(folder).free if folder.is_dir() else _NOTHING)


def _read_database(services: Services) -> None:
    database, metrics = services.database, services.metrics
    health = reader.queue_health(database)
    for state in AuditState:
        metrics.gauge("audits", health.states.get(state, 0), state=state.value)
    metrics.gauge("oldest_pending_seconds", health.oldest_pending_seconds or 0.0)
    metrics.gauge("expired_leases", health.expired_leases)
    for standing, count in outbox.counts(database).items():
        metrics.gauge("webhook_deliveries", count, state=standing.value)
    for ending, count in measurements.measurement_counts(database).items():
        metrics.gauge("measurements", count, state=ending.value)
    for ending, count in shared_builds.part_counts(database).items():
        metrics.gauge("build_parts", count, state=ending.value)
    for role, count in signs.alive(database).items():
        metrics.gauge("processes", count, role=role)
    metrics.gauge("trail_lag_seconds", trail_chain.lag_seconds(database))
    metrics.gauge("erasure_lag_seconds", erasures.lag_seconds(database))
    rule = retention.last_look(database)
    metrics.gauge("retention_lag_seconds", 0.0 if rule is None else rule.seconds)
    for kind, count in erasures.erased_texts(database).items():
        metrics.gauge("erased_texts", count, kind=kind)


def _know_nothing(metrics: Metrics) -> None:
    """No gauge goes on showing what was read last."""
    for name, (label, values) in _STORED.items():
        for labels in [{label: value} for value in values] if label else [{}]:
            metrics.gauge(name, _NOTHING, **labels)


def _read_queue(metrics: Metrics, name: str, read: Callable[[], int]) -> None:
    try:
        metrics.gauge(name, read())
    except QueueUnavailable:
        metrics.gauge(name, _NOTHING)
