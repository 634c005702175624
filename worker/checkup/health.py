"""Answers "is it well?" for one process or service; `python -m worker health NAME` and compose's health checks ask.

Every few seconds in every container: each check imports only what it asks with.
"""

from collections.abc import Callable
from dataclasses import dataclass

from wherefrom.errors import ConfigurationError, QueueUnavailable, TransientError
from wherefrom.settings import Settings, masked
from worker.vitals.liveness import STALE_S, LivenessFile

#: Longest wait for the web service's answer.
WEB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Health:
    """One answer."""

    name: str
    well: bool
    text: str


def check_health(name: str, settings: Settings) -> Health:
    """Health of one of `CHECKS`.

    Raises:
        ConfigurationError: there is nothing of that name.
    """
    if name not in CHECKS:
        raise ConfigurationError(f"unknown check {name!r}; the checks are {', '.join(CHECKS)}")
    try:
        well, text = CHECKS[name](settings)
    except TransientError as error:
        well, text = False, str(error)
    return Health(name, well=well, text=masked(text))


def _process(name: str) -> Callable[[Settings], tuple[bool, str]]:
    def _check(settings: Settings) -> tuple[bool, str]:
        liveness = LivenessFile(settings, name)
        age_s = liveness.age_s()
        if age_s is None:
            return False, f"no sign of life in {settings.state_dir}; it does not run on this machine"
        said = f"last sign of life {age_s:.0f} s ago"
        if paused := liveness.details().get("paused"):
            return False, f"{said}, paused: {paused}"
        return age_s <= STALE_S, said

    return _check


def _web(settings: Settings) -> tuple[bool, str]:
    import httpx

    url = web_url(settings)
    try:
        answer = httpx.get(f"{url}/healthz", timeout=WEB_TIMEOUT_S)
    except httpx.HTTPError as error:
        return False, f"{url} does not answer: {error}"
    return answer.is_success, f"{url} answers {answer.status_code}"


def _redis(settings: Settings) -> tuple[bool, str]:
    from worker.broker.redis_link import connect_redis, redis_errors
    from worker.embedded import beside_local_service

    try:
        with redis_errors(), connect_redis(beside_local_service(settings)) as client:
            return bool(client.ping()), "answers"
    except QueueUnavailable as error:
        if "redis_url" in settings.model_fields_set:
            raise
        return False, f"{error}; start the service (python -m worker up) or set WHEREFROM_REDIS_URL"


def _database(settings: Settings) -> tuple[bool, str]:
    from db.migrate import schema_of
    from db.session import open_database
    from db.storing.intake import check_writable

    with open_database(settings) as database:
        database.ping()
        schema = schema_of(settings.database_url.get_secret_value())
        if not schema.is_usable:
            return False, schema.text
        check_writable(database)
    return True, f"can be read and written; {schema.text}"


def web_url(settings: Settings) -> str:
    """Address of this machine's web service, as it wrote it, else as the settings say."""
    host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104 - asked, not bound
    return LivenessFile(settings, "web").details().get("url", f"http://{host}:{settings.port}")


#: What can be asked about.
CHECKS: dict[str, Callable[[Settings], tuple[bool, str]]] = {
    "intake": _process("intake"),
    "worker": _process("worker"),
    "sweeper": _process("sweeper"),
    "measurer": _process("measurer"),
    "builder": _process("builder"),
    "web": _web,
    "redis": _redis,
    "database": _database,
}
