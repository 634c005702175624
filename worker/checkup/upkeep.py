"""What `doctor` looks at beside the parts of the service: the trail and its anchors, room on the disks, the clock, entries that nobody takes, builds over several machines."""

import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import select

from db import signs
from db.audit_trail import trail_chain
from db.bundles import shared_builds
from db.clock import db_now
from db.erasure import erasures, retention
from db.reading.reader import queue_health
from db.session import Database, open_database, parse_url
from wherefrom.errors import StorageRefused, StorageUnavailable
from wherefrom.journal import journal_folder
from wherefrom.messages import ATTRIBUTE_QUEUE
from wherefrom.records import BuildProgress, utc_now
from wherefrom.settings import Settings, trace_export
from worker.broker.redis_link import flagged_stream, hint_queue
from worker.bundle_homes import bundle_cache, bundle_names
from worker.checkup.diagnosis import Finding, Verdict
from worker.checkup.health import check_health
from worker.sweeper.anchors import anchor_file
from worker.vitals.traces import missing_package
from worker.web_address import web_file

#: Seconds after which an event without a place, an entry that nobody took, and audits without a hint are worth a word.
UNSEALED_S, UNTAKEN_S, UNHINTED_S = 30.0, 60.0, 120.0
#: The same for an erasure that nobody has carried out, and for a rule of retention that nobody applies.
UNERASED_S, UNAPPLIED_S = 900.0, 3600.0
#: Free bytes below which a disk is nearly full, and below which writes will soon fail.
LITTLE_ROOM, NO_ROOM = 2_000_000_000, 200_000_000
#: Seconds between this machine's clock and the database's from which times in logs and signatures mislead.
SKEW_S = 5.0


def look_at_trail(settings: Settings) -> Iterator[Finding]:
    """Whether events are sealed, and whether the chain reaches as far as its newest anchor."""
    with open_database(settings) as database:
        lag_s = trail_chain.lag_seconds(database)
        with database.reading() as session:
            head = trail_chain.head_of(session)
        anchors = anchor_file(settings)
        seen = anchors.read()
        newest = max(seen, default=0)
        there = trail_chain.link_at(database, newest) if seen else None
    sealed = "nothing is sealed yet" if head is None else f"{head.sequence} events are sealed"
    late = lag_s > UNSEALED_S
    cure = "; check that the sweeper runs, or run python -m worker trail seal" if late else ""
    yield Finding(
        "trail", "problem" if late else "ok", f"{sealed}, the oldest other one waits {lag_s:.0f} s{cure}"
    )
    if not seen:
        text = f"no anchor in {anchors.path}: a tail that is cut off cannot be missed. The sweeper writes one once a minute; set WHEREFROM_TRAIL_ANCHOR_FILE to another machine's disk"
        yield Finding("trail anchor", "warning" if head is not None else "ok", text)
    elif there is None or there.row_hash != seen[newest]:
        text = f"an anchor saw event {newest}, and the chain {'ends before it' if there is None else 'has another event there'}: the database was restored to an older state, or events were removed or changed; run python -m worker trail verify"
        yield Finding("trail anchor", "problem", text)
    else:
        yield Finding("trail anchor", "ok", f"event {newest} is as the newest anchor saw it")
    if damaged := sorted(journal_folder(settings).glob("*.damaged")):
        text = f"{len(damaged)} journals have lines that cannot be read ({damaged[0].name}); keep the files, and read them by hand"
        yield Finding("journals", "warning", text)


def look_at_store(settings: Settings) -> Iterator[Finding]:
    """What object storage holds, and what of it is on this machine; nothing where bundles are in a folder."""
    cache = bundle_cache(settings)
    if cache is None:
        return
    try:
        stored = bundle_names(settings)
    except (StorageRefused, StorageUnavailable) as error:
        yield Finding("bundle store", "problem", f"{error.code}: {error}")
        return
    here = cache.bundles()
    took = sum(one.size_bytes for one in here) / 1e9
    text = f"{len(stored)} in {settings.bundles_url}; {len(here)} fetched to {settings.bundles_dir}, {took:.1f} of at most {settings.bundle_cache_bytes / 1e9:.1f} GB"
    yield Finding("bundle store", "ok", text)


def look_at_erasing(settings: Settings) -> Iterator[Finding]:
    """Whether somebody sweeps, carries out erasures and applies the rules of retention. Where nothing at all runs, a missing sweeper is only worth a word."""
    with open_database(settings) as database:
        alive = signs.alive(database)
        waits_s, rule = erasures.lag_seconds(database), retention.last_look(database)
    cure = (
        "check that a sweeper runs and that Redis answers (python -m worker sweep); its log says why it waits"
    )
    if not alive["sweep"]:
        others = any(alive.values()) or _serves_web(settings)
        text = f"no sweeper on any machine gave a sign in the last {signs.SILENT_S:.0f} s: nothing is retried, sealed, erased or told; start one with python -m worker sweep"
        yield Finding("sweeper", "problem" if others else "warning", text)
    if waits_s > UNERASED_S:
        text = f"an erasure that was asked for {waits_s:.0f} s ago is not carried out; {cure}"
        yield Finding("erasures", "problem", text)
    if rule is not None:
        late = rule.seconds > UNAPPLIED_S
        text = f"the rule {rule.name!r} was applied {rule.seconds:.0f} s ago, every other one later"
        yield Finding("retention", "problem" if late else "ok", f"{text}; {cure}" if late else text)


def _serves_web(settings: Settings) -> bool:
    """Whether a web process of this machine answers; it gives no signs in the database."""
    return web_file(settings).age_s() is not None and check_health("web", settings).well


def look_at_builds(settings: Settings) -> Iterator[Finding]:
    """Where builds over several machines stand; nothing where nobody builds."""
    with open_database(settings) as database:
        builds, alive = shared_builds.list_builds(database), signs.alive(database)["build"]
    for build, now in builds:
        text = f"{now.done} of {build.parts} parts are read, {now.running} are being read, {now.waiting} wait, {now.dead} cannot be read"
        cure = _build_cure(build.build_id, now, alive)
        yield Finding(f"build {build.build_id}", "ok" if cure is None else "warning", f"{text}{cure or ''}")


def _build_cure(build_id: int, now: BuildProgress, alive: int) -> str | None:
    """What is to be done about a build; None where it goes on."""
    if now.waiting and not alive:
        return "; no build worker is alive: start python -m worker build-worker"
    if now.dead:
        first = now.dead_parts[0]
        return f" (part {first.number + 1} [{first.code}]: {first.reason}); mend the cause and run the same python -m worker build again, or give it up with python -m worker builds cancel {build_id}"
    if now.refused is not None and not now.running:
        return f"; worker {now.refused.worker} takes no part [{now.refused.code}]: {now.refused.reason}"
    return None


def look_at_disks(settings: Settings) -> Iterator[Finding]:
    """Room where this machine keeps something; a folder that is not there is nobody's."""
    folders = {
        "state": settings.state_dir,
        "bundles": settings.bundles_dir,
        "measurements": settings.measure_dir,
    }
    url = settings.database_url.get_secret_value()
    if url.startswith("sqlite") and (file := parse_url(url).database):
        folders["database"] = Path(file).resolve().parent
    seen: set[int] = set()
    for what, folder in folders.items():
        if not folder.is_dir() or folder.stat().st_dev in seen:
            continue
        seen.add(folder.stat().st_dev)
        free = shutil.disk_usage(folder).free
        verdict: Verdict = "problem" if free < NO_ROOM else "warning" if free < LITTLE_ROOM else "ok"
        cure = "" if verdict == "ok" else "; free some before writes are refused"
        yield Finding("disk", verdict, f"{free / 1e9:.1f} GB free in {folder} ({what}){cure}")


def look_at_clock(settings: Settings) -> Iterator[Finding]:
    """How far this machine's clock is from the database's, by which leases go."""
    with open_database(settings) as database:
        before = utc_now()
        with database.reading() as session:
            theirs: datetime = session.execute(select(db_now())).scalar_one()
        middle = before + (utc_now() - before) / 2
    apart = (middle - theirs).total_seconds()
    if abs(apart) <= SKEW_S:
        yield Finding("clock", "ok", f"{abs(apart):.1f} s from the database's")
        return
    way = "ahead of" if apart > 0 else "behind"
    text = f"this machine is {abs(apart):.0f} s {way} the database: leases are safe, but log lines, webhook signatures and the ends of sessions are not; synchronise the clocks (NTP)"
    yield Finding("clock", "warning", text)


def look_at_stream(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Entries that intake does not take; nothing where all is well."""
    first: Any = client.xrange(flagged_stream(settings), count=1)
    if not first:
        return
    seconds, fraction = client.time()
    age_s = seconds + fraction / 1e6 - int(first[0][0].partition(b"-")[0]) / 1e3
    if age_s > UNTAKEN_S:
        text = f"the oldest entry of the stream waits for {age_s:.0f} s; check that intake runs and that the database takes writes"
        yield Finding("stream lag", "warning", text)


def look_at_hints(client: redis.Redis, database: Database, settings: Settings) -> Iterator[Finding]:
    """Audits that could be worked while nothing says so; nothing where all is well."""
    waiting_s = queue_health(database).oldest_pending_seconds or 0.0
    if waiting_s > UNHINTED_S and not client.llen(hint_queue(settings, ATTRIBUTE_QUEUE)):
        text = f"audits wait for {waiting_s:.0f} s and no hint is on the queue; check that the sweeper runs and that a worker can use their bundle"
        yield Finding("hint lag", "warning", text)


def look_at_traces() -> Iterator[Finding]:
    """Whether traces are sent, where they are asked for."""
    asked = trace_export()
    if asked is None:
        return
    problem = asked.problem or missing_package()
    yield (
        Finding("traces", "ok", "sent by OTLP") if problem is None else Finding("traces", "warning", problem)
    )
