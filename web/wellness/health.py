"""Is the service alive, is it ready, and what does it measure: `/healthz`, `/readyz`, `/metrics`."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, Field
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from db import counters, migrate
from db.access.keys import Scope
from db.storing import intake
from web.errors import documented
from web.guard.security import needs
from web.services import Services, services_of
from web.wellness.gauges import read_gauges
from wherefrom.errors import DatabaseReadOnly, DatabaseUnavailable, QueueUnavailable, WherefromError
from wherefrom.logs import get_logger
from wherefrom.messages import ATTRIBUTE_QUEUE, FLAGGED_STREAM, QUARANTINE_STREAM
from wherefrom.metrics import Series
from wherefrom.redis_url import connection_options
from wherefrom.settings import Settings

_log = get_logger(__name__)

#: A probe that waits longer than this says nothing more than "away".
PROBE_TIMEOUT_S = 2.0

router = APIRouter(tags=["health"])


class Check(BaseModel):
    """One thing that the service needs."""

    ok: bool
    detail: str = Field(description="`ok`, or what is wrong.")


class Readiness(BaseModel):
    """Whether the service can take and show flagged outputs now."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class RedisProbe:
    """Asks the Redis of the settings; connects on first use."""

    def __init__(self, settings: Settings) -> None:
        url = settings.redis_url.get_secret_value()
        timeouts = {"socket_timeout": PROBE_TIMEOUT_S, "socket_connect_timeout": PROBE_TIMEOUT_S}
        self._redis: Redis = Redis.from_url(url, **connection_options(url, timeouts))
        self._stream = settings.key_prefix + FLAGGED_STREAM
        self._quarantine = settings.key_prefix + QUARANTINE_STREAM
        self._hints = settings.key_prefix + ATTRIBUTE_QUEUE

    def ping(self) -> None:
        """Return when Redis answers.

        Raises:
            QueueUnavailable: it does not.
        """
        try:
            self._redis.ping()
        except RedisError as error:
            raise QueueUnavailable("Redis does not answer") from error

    def stream_entries(self) -> int:
        """Entries of the flagged stream that intake has not taken yet: taken ones are deleted.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return self._length(self._stream)

    def quarantined_entries(self) -> int:
        """Entries of the quarantine, which wait for an operator.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return self._length(self._quarantine)

    def hints(self) -> int:
        """Hints on the queue of audits.

        Raises:
            QueueUnavailable: Redis does not answer.
        """
        return self._length(self._hints, self._redis.llen)

    def _length(self, key: str, count: Callable[[str], Any] | None = None) -> int:
        try:
            return int((count or self._redis.xlen)(key))
        except ResponseError as error:
            raise QueueUnavailable(f"the key {key} holds something else") from error
        except RedisError as error:
            raise QueueUnavailable("Redis does not answer") from error


class SilentProbe:
    """Stands for a Redis that is always there and empty: a service without stream and hints, and tests."""

    def ping(self) -> None:
        """Return at once."""

    def stream_entries(self) -> int:
        """No entries."""
        return 0

    def quarantined_entries(self) -> int:
        """No entries."""
        return 0

    def hints(self) -> int:
        """No hints."""
        return 0


def check(probe: Callable[[], str | None]) -> Check:
    """The outcome of one probe: it returns what is wrong or None, or raises one of our errors."""
    try:
        wrong = probe()
    except WherefromError as error:
        # Not the error's text: it names hosts, and no key is needed to ask.
        _log.warning("not_ready", code=error.code, reason=str(error))
        return Check(ok=False, detail="does not answer; the web service's log has the details")
    return Check(ok=wrong is None, detail=wrong or "ok")


def readiness(services: Services) -> Readiness:
    """All checks, each on its own: one that fails hides no other."""

    def database() -> None:
        services.database.ping()

    def schema() -> str | None:
        found = migrate.schema_of(services.settings.database_url.get_secret_value())
        return None if found.is_usable else found.text

    def writes() -> str | None:
        try:
            intake.check_writable(services.database)
        except DatabaseReadOnly as error:
            _log.warning("not_ready", code=error.code, reason=str(error))
            return "is read-only (a standby, or set to read-only): nothing can be stored"
        except DatabaseUnavailable as error:
            _log.warning("not_ready", code=error.code, reason=str(error))
            return "can be read but not written; the web service's log has the details"
        return None

    checks = {"database": check(database), "redis": check(services.queue.ping)}
    if checks["database"].ok:
        checks["schema"] = check(schema)
        if checks["schema"].ok:
            checks["database"] = check(writes)
    ready = all(one.ok for one in checks.values())
    return Readiness(status="ready" if ready else "not_ready", checks=checks)


@router.get("/healthz")
async def healthz() -> Liveness:
    """The process answers. This check does not look at Redis or the database, and it never waits for a thread, a slot or SQL."""
    return Liveness()


@router.get(
    "/readyz", responses={503: {"model": Readiness, "description": "A part of the service is unavailable."}}
)
def readyz(services: Annotated[Services, Depends(services_of)]) -> Response:
    """The database has this release's schema and accepts writes (a probe is stored and rolled back), and Redis answers."""
    found = readiness(services)
    status = HTTPStatus.OK if found.status == "ready" else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse(found.model_dump(mode="json"), status_code=status)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    dependencies=[Depends(needs(Scope.METRICS))],
    responses=documented(HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN),
)
def metrics(services: Annotated[Services, Depends(services_of)]) -> Response:
    """All metrics in the Prometheus text format. Gauges of the queue are read at scrape time. Counters cover all processes of the service."""
    read_gauges(services)
    return Response(generate_latest(_Shown(services)), media_type=CONTENT_TYPE_LATEST)


class _Shown(Collector):
    """The service's totals beside what this process alone counts."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """All families."""
        return self._services.metrics.families(self._totals())

    def _totals(self) -> dict[Series, float] | None:
        metrics = self._services.metrics
        try:
            with metrics.moving:
                totals = counters.read_totals(self._services.database)
                for series, value in metrics.increments().items():
                    totals[series] = totals.get(series, 0.0) + value
        except DatabaseUnavailable:
            return None
        return totals
