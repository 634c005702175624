"""Looks the whole installation over and says what is wrong and what to do about it; `python -m worker doctor` shows it."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import redis

from db.access import keys
from db.access.producers import is_reserved
from db.bundles import catalogue
from db.measuring import measurements
from db.notices import outbox
from db.reading import reader
from db.session import Database, open_database, parse_url
from wherefrom.access import is_loopback
from wherefrom.attribution.interface import Engine
from wherefrom.errors import PermanentError, TransientError, WherefromError
from wherefrom.messages import ATTRIBUTE_QUEUE, INTAKE_GROUP
from wherefrom.records import AuditState, BundleInfo, DeliveryState, MeasurementState
from wherefrom.settings import Settings, masked, unknown_variables
from worker.broker.redis_link import (
    connect_redis,
    flagged_stream,
    hint_queue,
    quarantine_stream,
    redis_errors,
    rejected_stream,
)
from worker.checkup.diagnosis import Finding
from worker.checkup.health import check_health
from worker.checkup.upkeep import (
    look_at_builds,
    look_at_clock,
    look_at_disks,
    look_at_erasing,
    look_at_hints,
    look_at_store,
    look_at_stream,
    look_at_traces,
    look_at_trail,
)
from worker.embedded import beside_local_service
from worker.pool.engine import OTHER_ENGINE, load_engine
from worker.pool.placing import placed_processes
from worker.sweeper.webhook import WebhookSender

#: kombu's Redis transport and XAUTOCLAIM need it.
LEAST_REDIS = (6, 2)


def examine(settings: Settings, *, afresh: bool = False) -> list[Finding]:
    """Everything that can be seen from this machine, in the order in which to mend it.

    Args:
        settings: Of the service.
        afresh: Hash every file of the active bundles that are on this machine, whatever it remembers of them.
    """
    if afresh:
        settings = settings.model_copy(update={"verify_bundles": True})
    findings = [
        Finding("settings", "warning", f"{name} is not a setting; see docs/settings.md")
        for name in unknown_variables(os.environ)
    ]
    if settings.engine is not None:
        findings.append(Finding("engine", "warning", f"{settings.engine}: {OTHER_ENGINE}"))
    findings += [stored := _health("database", settings), queued := _health("redis", settings)]
    looks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [("links", lambda: _plain_links(settings))]
    if queued.verdict == "ok":
        looks.append(("redis", lambda: _redis(settings)))
    if stored.verdict == "ok":
        looks += [("bundles", lambda: _bundles(settings)), ("audits", lambda: _audits(settings))]
        looks += [("keys", lambda: _keys(settings)), ("database file", lambda: _database_file(settings))]
        looks += [("webhook", lambda: _webhook(settings)), ("trail", lambda: look_at_trail(settings))]
        looks += [
            ("erasing", lambda: look_at_erasing(settings)),
            ("clock", lambda: look_at_clock(settings)),
            ("builds", lambda: look_at_builds(settings)),
        ]
        if queued.verdict == "ok":
            looks.append(("hint lag", lambda: _hints(settings)))
    looks += [("disk", lambda: look_at_disks(settings)), ("traces", look_at_traces)]
    for what, look in looks:
        try:
            findings += look()
        except WherefromError as error:
            findings.append(Finding(what, "problem", str(error)))
    measurer = () if settings.recipe is None else ("measurer",)
    findings += [_process(name, settings) for name in ("intake", "worker", "sweeper", *measurer, "web")]
    findings += _devices(settings)
    return [replace(one, text=masked(one.text)) for one in findings]


def _plain_links(settings: Settings) -> Iterator[Finding]:
    """Nothing where Redis and the database are on this machine, or prove who they are."""
    redis_url = urlsplit(beside_local_service(settings).redis_url.get_secret_value())
    if redis_url.scheme == "redis" and not is_loopback(redis_url.hostname or "localhost"):
        yield Finding(
            "redis link", "warning", "texts and the password cross the network in the clear; use rediss://"
        )
    url = parse_url(settings.database_url.get_secret_value())
    away = url.get_backend_name() == "postgresql" and not is_loopback(url.host or "localhost")
    if away and url.query.get("sslmode") != "verify-full":
        yield Finding(
            "database link",
            "warning",
            "nothing checks that the server is the right one; put sslmode=verify-full&sslrootcert=PATH into the URL",
        )


def _health(name: str, settings: Settings) -> Finding:
    try:
        health = check_health(name, settings)
    except PermanentError as error:
        return Finding(name, "problem", str(error))
    return Finding(name, "ok" if health.well else "problem", health.text)


def _process(name: str, settings: Settings) -> Finding:
    """Processes may well run on other machines, so their absence here is only worth a word."""
    health = check_health(name, settings)
    return Finding(name, "ok" if health.well else "warning", health.text)


def _devices(settings: Settings) -> Iterator[Finding]:
    """What each process computes on, and whether this machine has what was asked for by name."""
    placed = list(placed_processes(settings))
    for one in placed:
        yield Finding(one.name, "ok", one.text)
    if placed or (settings.device in {"auto", "cpu"} and settings.dtype != "bfloat16"):
        return
    from wherefrom.attribution.models.placement import Placement  # noqa: PLC0415 - imports torch

    try:
        found = Placement.resolve(settings.device, settings.dtype)
    except PermanentError as error:
        yield Finding("device", "warning", f"{error}; a worker on this machine would refuse every bundle")
    else:
        yield Finding("device", "ok", f"{found}; no process has loaded a model yet")


def _redis(settings: Settings) -> Iterator[Finding]:
    with redis_errors(), connect_redis(beside_local_service(settings)) as client:
        version = str(client.info("server")["redis_version"])
        numbers = tuple(int(part) for part in version.split(".")[:2])
        least = ".".join(map(str, LEAST_REDIS))
        yield Finding(
            "redis version",
            "ok" if numbers >= LEAST_REDIS else "problem",
            f"{version}; {least} or newer is needed",
        )
        yield from _durability(client)
        yield from _queues(client, settings)
        yield from look_at_stream(client, settings)


def _hints(settings: Settings) -> Iterator[Finding]:
    redis_settings = beside_local_service(settings)
    with open_database(settings) as database, redis_errors(), connect_redis(redis_settings) as client:
        yield from look_at_hints(client, database, settings)


def _durability(client: redis.Redis) -> Iterator[Finding]:
    try:
        values = client.config_get("append*", "maxmemory-policy")
    except redis.ResponseError:
        yield Finding(
            "redis durability", "warning", "CONFIG is not allowed for this user; see docs/operations.md"
        )
        return
    if values.get("appendonly") != "yes":
        yield Finding(
            "redis durability",
            "warning",
            "appendonly is off: a Redis crash loses the entries that intake has not read yet",
        )
    else:
        sync = values.get("appendfsync")
        loss = {"always": "nothing", "everysec": "up to one second of entries"}.get(
            str(sync), "entries of many seconds"
        )
        yield Finding("redis durability", "ok", f"appendfsync {sync}: a crash loses {loss}")
    policy = values.get("maxmemory-policy")
    if policy != "noeviction":
        yield Finding(
            "redis eviction",
            "problem",
            f"maxmemory-policy is {policy}: Redis may drop the stream; set noeviction",
        )


def _queues(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    waiting, refused = client.xlen(flagged_stream(settings)), client.xlen(rejected_stream(settings))
    yield Finding("flagged stream", "ok", f"{waiting} entries wait for {INTAKE_GROUP}")
    yield Finding("hints", "ok", f"{client.llen(hint_queue(settings, ATTRIBUTE_QUEUE))} on the queue")
    if refused:
        text = f"{refused} entries were rejected; list them with python -m worker replay --list"
        yield Finding("rejected stream", "warning", text)
    if held := client.xlen(quarantine_stream(settings)):
        full = held >= settings.quarantine_limit
        text = (
            f"{held} of at most {settings.quarantine_limit} entries could not be stored although others could"
        )
        paused = "; the quarantine is full and intake pauses" if full else ""
        yield Finding(
            "quarantine", "problem" if full else "warning", f"{text}{paused}: python -m worker replay --list"
        )


def _bundles(settings: Settings) -> Iterator[Finding]:
    yield from look_at_store(settings)
    engine = load_engine(settings)
    with open_database(settings) as database:
        bundles = catalogue.active_bundles(database)
        if not bundles:
            yield Finding(
                "bundles",
                "problem",
                "no bundle is active; add one with python -m worker add-bundle PATH --activate",
            )
        for bundle in bundles:
            try:
                engine.check(bundle)
            except (PermanentError, TransientError) as error:
                yield Finding("bundle", "problem", f"{error.code}: {error}")
            else:
                yield Finding(
                    "bundle",
                    "ok",
                    f"{bundle.name} explains {bundle.model} ({bundle.corpus_examples} examples)",
                )
                yield from _model(bundle, engine)


def _database_file(settings: Settings) -> Iterator[Finding]:
    """Nothing where all is well: a SQLite file of a release that left its mode to the umask keeps it."""
    url = parse_url(settings.database_url.get_secret_value())
    if url.get_backend_name() != "sqlite":
        return
    path = Path(url.database or "")
    if path.is_file() and path.stat().st_mode & 0o077:
        yield Finding(
            "database file", "warning", f"other users can read the flagged texts in it; run chmod 600 {path}*"
        )


def _keys(settings: Settings) -> Iterator[Finding]:
    """Nothing where all is well: keys that end soon, and keys of a release that reserved no names, which may share idempotency keys with the service's own entry points."""
    with open_database(settings) as database:
        held = [key for key in keys.list_keys(database) if key.revoked_at is None]
    now = datetime.now(UTC)
    for key in held:
        if (text := _ending(key, now)) is not None:
            yield Finding("keys", "warning", text)
        if is_reserved(key.producer):
            text = f"the key {key.name} has the producer {key.producer}, a name that the service uses itself; create another key (python -m worker keys create), then revoke this one"
            yield Finding("keys", "warning", text)


def _ending(key: keys.KeyInfo, now: datetime) -> str | None:
    """What is to be done about a key that somebody uses and that is about to end, or has ended a short while ago; None where nothing is."""
    if key.expires_at is None or key.last_used_at is None or not key.is_ending(now):
        return None
    used = f"it was last used on {key.last_used_at:%Y-%m-%d %H:%M} UTC"
    if key.expires_at <= now:
        return f"the key {key.name} expired on {key.expires_at:%Y-%m-%d %H:%M} UTC, and {used}; make a new one: python -m worker keys create NAME --producer {key.producer}"
    return f"the key {key.name} ends on {key.expires_at:%Y-%m-%d %H:%M} UTC, and {used}; replace it in time: python -m worker keys rotate {key.name}"


def _webhook(settings: Settings) -> Iterator[Finding]:
    """Nothing where nothing is told."""
    if (target := settings.webhook()) is None:
        return
    try:
        address = WebhookSender(target, timeout_s=settings.notify_timeout_seconds).check()
    except TransientError as error:
        yield Finding("webhook", "warning", f"{error}; nothing can be told from this machine")
    else:
        yield Finding(
            "webhook", "ok", f"{target.host} is at {address}; send a test with python -m worker notify test"
        )
    with open_database(settings) as database:
        waiting = outbox.counts(database)
    if dead := waiting[DeliveryState.DEAD]:
        text = f"{dead} were given up; read why with python -m worker notify list --state dead, then send them again with python -m worker notify retry"
        yield Finding("notices", "warning", text)


def _model(bundle: BundleInfo, engine: Engine) -> Iterator[Finding]:
    """Workers may run on other machines, so a model that is not here is only worth a word."""
    try:
        engine.check_model(bundle)
    except PermanentError as error:
        yield Finding("model", "warning", f"{error}; a worker on this machine would refuse the bundle")


def _audits(settings: Settings) -> Iterator[Finding]:
    database: Database = open_database(settings)
    try:
        queue = reader.queue_health(database)
        measured = measurements.measurement_counts(database)
    except TransientError as error:
        yield Finding("audits", "problem", str(error))
        return
    finally:
        database.dispose()
    counts = (
        ", ".join(
            f"{queue.count_text(state)} {state.value}" for state, count in queue.states.items() if count
        )
        or "none yet"
    )
    yield Finding("audits", "ok", counts)
    if queue.expired_leases:
        yield Finding(
            "leases",
            "warning",
            f"{queue.expired_leases} expired and were not taken back; check that the sweeper runs",
        )
    yield from _measurements(measured, settings)
    if queue.states.get(AuditState.DEAD, 0):
        yield Finding(
            "dead audits",
            "warning",
            f"{queue.count_text(AuditState.DEAD)}; see their codes on the page, then run python -m worker retry --state dead",
        )


def _measurements(counts: dict[MeasurementState, int], settings: Settings) -> Iterator[Finding]:
    """Nothing where no effect was ever asked for."""
    text = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    if not text:
        return
    if counts[MeasurementState.PENDING] and settings.recipe is None:
        yield Finding("measurements", "warning", f"{text}; WHEREFROM_RECIPE is not set, so none is measured")
    else:
        yield Finding("measurements", "ok", text)
