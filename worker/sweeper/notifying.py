"""Looks from time to time whether something must be told, and tells it to the webhook; a thread of the sweeper does both.

Nothing else waits for a receiver that is slow or away. Several at once are harmless: `db.notices.alerts` lets one of them raise a notice, and a try is
a claim of `db.notices.outbox`.
"""

import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode, urlsplit

from db.notices import alerts, outbox
from db.reading.blame import blame
from db.reading.reader import queue_health
from db.reviewing.review_queues import list_queues
from db.session import Database
from wherefrom.backoff import backoff_seconds
from wherefrom.errors import TransientError, WebhookFailed, WebhookGone
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.records import AuditState, Level, Notice, NoticeKind, Outgoing
from wherefrom.settings import Settings
from worker.loop import guarded

if TYPE_CHECKING:
    from worker.sweeper.webhook import WebhookSender

log = get_logger(__name__)

#: Newest answered audits in which blame is counted.
LOOKED_AT = 1000
#: A source whose q is within this factor above the limit is neither told nor counted as fallen.
UNSURE = 10
#: Wait after the first failed try, which doubles with each further one, and the longest wait; seconds.
RETRY_BASE_S, RETRY_CAP_S = 10.0, 3600.0
#: How much longer than a try its claim holds, seconds.
LEASE_MARGIN_S = 30.0
#: Seconds between two looks for notices that are due.
POLL_S = 2.0
WATCHED = (NoticeKind.SOURCE_BLAMED, NoticeKind.QUEUE_FILLED, NoticeKind.AUDITS_DEAD)


def levels(database: Database, settings: Settings) -> list[Level]:
    """Everything that is told when it reaches its threshold; a threshold of 0 never is."""
    return [*_blamed(database, settings), *_filled(database, settings), *_dead(database, settings)]


def _off(settings: Settings) -> frozenset[NoticeKind]:
    """Kinds whose threshold is 0."""
    thresholds = (settings.notify_blame_outputs, settings.notify_queue_audits, settings.notify_dead_audits)
    return frozenset(kind for kind, threshold in zip(WATCHED, thresholds, strict=True) if not threshold)


def _blamed(database: Database, settings: Settings) -> Iterator[Level]:
    threshold, limit = settings.notify_blame_outputs, settings.notify_blame_q
    if not threshold:
        return
    for one in blame(database, newest=LOOKED_AT):
        if not one.first_citations:
            continue
        explained = one.q is not None and one.q > UNSURE * limit
        data = {
            "source": one.source,
            "first_citations": one.first_citations,
            "audits": one.audits,
            "expected": one.expected,
            "q": one.q,
            "link": _link(settings, "/source", source=one.source),
        }
        yield Level(
            notice=Notice(kind=NoticeKind.SOURCE_BLAMED, subject=one.source, data=data),
            value=0 if explained else one.first_citations,
            threshold=threshold,
            is_certain=one.q is None or explained or one.q <= limit,
        )


def _filled(database: Database, settings: Settings) -> Iterator[Level]:
    threshold = settings.notify_queue_audits
    if not threshold:
        return
    for one in list_queues(database):
        if one.closed_at is None:
            link = _link(settings, f"/review/{one.queue_id}")
            data = {"queue_id": one.queue_id, "open": one.open, "link": link}
            notice = Notice(kind=NoticeKind.QUEUE_FILLED, subject=str(one.queue_id), data=data)
            yield Level(notice=notice, value=one.open, threshold=threshold)


def _dead(database: Database, settings: Settings) -> Iterator[Level]:
    threshold = settings.notify_dead_audits
    if threshold:
        dead = queue_health(database).states.get(AuditState.DEAD, 0)
        data = {"dead": dead, "link": _link(settings, "/", state=AuditState.DEAD.value)}
        notice = Notice(kind=NoticeKind.AUDITS_DEAD, data=data)
        yield Level(notice=notice, value=dead, threshold=threshold)


def _link(settings: Settings, path: str, **query: str) -> str:
    """Where a person looks; without the user that a URL may name."""
    base = urlsplit(settings.service_url)
    plain = base._replace(netloc=base.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")
    return f"{plain}{path}{'?' if query else ''}{urlencode(query)}"


class Deliverer:
    """Sends what is due."""

    def __init__(
        self, database: Database, sender: "WebhookSender", *, settings: Settings, metrics: Metrics
    ) -> None:
        self._database, self._sender = database, sender
        self._settings, self._metrics = settings, metrics

    def deliver(self, *, delivery_id: int | None = None) -> bool:
        """Try to send the notice that is due first, or this one; False where there was none.

        Raises:
            DatabaseUnavailable: what a try came to could not be written; the notice is tried again.
        """
        lease_s = self._settings.notify_timeout_seconds + LEASE_MARGIN_S
        outgoing = outbox.claim(self._database, lease_s=lease_s, delivery_id=delivery_id)
        if outgoing is None:
            return False
        self._metrics.count("webhook_tries_total", outcome=self._try(outgoing))
        return True

    def _try(self, outgoing: Outgoing) -> str:
        try:
            self._sender.send(outgoing.event_id, outgoing.body.encode("utf-8"))
        except (WebhookFailed, WebhookGone) as error:
            log.warning(
                "notice_not_delivered",
                event_id=outgoing.event_id,
                attempt=outgoing.attempt,
                code=error.code,
                reason=str(error),
            )
            wait_s = backoff_seconds(outgoing.attempt, base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S)
            most = self._settings.notify_max_attempts
            state = outbox.failed(self._database, outgoing, error, wait_s=wait_s, max_attempts=most)
            return "fenced" if state is None else state.value
        log.info("notice_delivered", event_id=outgoing.event_id, attempt=outgoing.attempt)
        return "delivered" if outbox.delivered(self._database, outgoing) else "fenced"


class Notifier:
    """Looks and tells, from a thread."""

    def __init__(
        self, database: Database, sender: "WebhookSender", *, settings: Settings, metrics: Metrics
    ) -> None:
        self._database, self._settings, self._metrics = database, settings, metrics
        self._deliverer = Deliverer(database, sender, settings=settings, metrics=metrics)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    @classmethod
    def of(cls, database: Database, *, settings: Settings, metrics: Metrics) -> Self | None:
        """The notifier of the settings; None where nothing is told."""
        target = settings.webhook()
        if target is None:
            return None
        from worker.sweeper.webhook import WebhookSender  # noqa: PLC0415 - httpcore; most services tell nothing

        sender = WebhookSender(target, timeout_s=settings.notify_timeout_seconds)
        return cls(database, sender, settings=settings, metrics=metrics)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def close(self) -> None:
        """End the thread; a try that is under way may end by itself, or is repeated by the next process."""
        self._stop.set()
        self._thread.join(timeout=self._settings.notify_timeout_seconds)

    def look(self) -> None:
        """Put on its way what is news.

        Raises:
            DatabaseUnavailable: nothing was put on its way.
        """
        found = levels(self._database, self._settings)
        pause_s = self._settings.notify_pause_seconds
        news = alerts.watch(self._database, found, kinds=WATCHED, pause_s=pause_s, off=_off(self._settings))
        for one in news.raised:
            log.info("notice_raised", kind=one.notice.kind.value, value=one.value, threshold=one.threshold)
            self._metrics.count("notices_raised_total", kind=one.notice.kind.value)
        for one in news.resolved:
            kind = one.notice.kind.resolved.value
            log.info("notice_resolved", kind=kind, value=one.value, threshold=one.threshold)
            self._metrics.count("notices_raised_total", kind=kind)
        outbox.forget_old(self._database)

    def tell(self) -> None:
        """Send all that is due.

        Raises:
            DatabaseUnavailable: what was not sent waits.
        """
        while not self._stop.is_set() and self._deliverer.deliver():
            pass

    def _run(self) -> None:
        every = max(1, round(self._settings.notify_every_seconds / POLL_S))
        rounds = 0
        while not self._stop.wait(POLL_S):
            look = rounds % every == 0
            guarded(partial(self._round, look=look), name="notifier", otherwise=None)
            rounds += 1

    def _round(self, *, look: bool) -> None:
        try:
            if look:
                self.look()
            self.tell()
        except TransientError as error:
            log.warning("waiting", process="notifier", code=error.code, reason=str(error))
