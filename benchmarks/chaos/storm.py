"""One storm: servers, processes and producers are started, faults come by plan, and when all is quiet again the books are read."""

import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.chaos import faults, ledger
from benchmarks.chaos.cluster import Cluster, Kept, worker_command
from benchmarks.chaos.engine import ENGINE, register
from benchmarks.chaos.faults import Scene
from benchmarks.chaos.outputs import (
    CLI,
    FLAGGED,
    HTTP,
    KEY_PREFIX,
    MODEL,
    MODEL_VARIABLE,
    SPOOL,
    STREAM,
    is_poison,
    key_of,
)
from benchmarks.chaos.producers import Journal
from benchmarks.chaos.servers import Clock, Disk, PostgresHouse, RedisHouse, small_disk
from benchmarks.chaos.watching import Canaries, Reclaims
from benchmarks.program import report
from db import migrate
from db.reading import reader
from db.session import Database
from wherefrom.atomic import write_text
from wherefrom.errors import DatabaseUnavailable, QueueUnavailable
from wherefrom.records import AuditState
from wherefrom.settings import child_environment
from worker.embedded import free_port

#: Share of the outputs that each producer sends.
SHARES = {f"{STREAM}-1": 0.25, f"{STREAM}-2": 0.25, f"{HTTP}-1": 0.3, f"{SPOOL}-1": 0.15, f"{CLI}-1": 0.05}
#: Service processes beside the workers.
OTHERS = ("web", "intake", "sweeper")
COMMANDS = {"web": "web", "intake": "intake", "sweeper": "sweep"}
_START = "start"
#: Start to first answer, and from the last fault until all is quiet, seconds.
START_S, SETTLE_S = 120.0, 600.0
#: Most that a canary may take, and the one after FLUSHALL, on an idle machine, seconds.
CANARY_S, FLUSHALL_S = 15.0, 30.0


@dataclass(frozen=True)
class Weather:
    """How much of everything."""

    engine_db: str
    outputs: int
    kills: int
    seed: int
    #: How often every other fault comes under each setting of Redis.
    rounds_of_others: int = 1
    workers: int = 2
    pool: int = 2
    lease_s: float = 8.0
    pause_s: float = 30.0
    canary_s: float = CANARY_S
    #: Longest time after the lease until an audit is claimed again, seconds.
    reclaim_after_lease_s: float = 5.0
    short: bool = False


@dataclass(frozen=True)
class Stage:
    """What a storm takes place on: an engine with its bundle, and the settings that go with it."""

    #: Registers the bundle.
    register: Callable[[Database], object]
    settings: Mapping[str, str]
    model: str


STORM_STAGE = Stage(register, {"engine": ENGINE, "allow_other_engine": "true"}, MODEL)


def counts_of(outputs: int) -> dict[str, int]:
    """How many outputs each producer sends."""
    return {name: max(1, round(share * outputs)) for name, share in SHARES.items()}


def storm(weather: Weather, folder: Path, *, stage: Stage = STORM_STAGE) -> dict[str, Any]:
    """Raise a storm and count; the figures, with the invariants that do not hold under `broken`."""
    with ExitStack() as stack:
        site = stack.enter_context(site_of(weather, folder, stage))
        environment = site.environment | {MODEL_VARIABLE: stage.model}
        write_text(folder / "allowed", "0")
        cluster, ground = site.cluster, site.ground
        scene = _scene(weather, site)
        stack.callback(scene.reclaims.stop)
        for name in (*OTHERS, *scene.workers):
            cluster.add(service_process(name, folder, environment | ground.clock.environment))
        canaries = Canaries(site.database, environment["WHEREFROM_SERVICE_URL"], ground.redis, stage.model)
        say("start", f"answering after {canaries.send(_START):.1f} s")
        counts = counts_of(weather.outputs)
        for name, count in counts.items():
            cluster.add(_producer(name, count, folder, environment))
        _weather(scene, canaries, weather, folder)
        quiet = _settle(scene, canaries, list(counts))
        cluster.stop()
        return _figures(weather, scene, canaries, folder) | {"quiet_s": round(quiet, 1)}


@dataclass
class Ground:
    """The servers."""

    url: str
    redis: RedisHouse
    clock: Clock
    postgres: PostgresHouse | None
    disk: Disk | None


@contextmanager
def servers_of(weather: Weather, folder: Path) -> Iterator[Ground]:
    """The servers of a storm, started; stopped at the end of the block."""
    with ExitStack() as stack:
        clock, house = Clock(folder), RedisHouse(folder)
        house.start(ledger.ALWAYS)
        stack.callback(house.stop)
        place = folder / "database"
        place.mkdir(mode=0o755)
        disk = None if weather.short else stack.enter_context(small_disk(place))
        if weather.engine_db == "sqlite":
            yield Ground(f"sqlite:///{place / 'storm.db'}", house, clock, None, disk)
            return
        postgres = PostgresHouse(clock.environment, place)
        stack.callback(postgres.stop)
        yield Ground(postgres.url, house, clock, postgres, disk)


@dataclass(frozen=True)
class Site:
    """The servers with a schema and a bundle, and a cluster without processes yet."""

    ground: Ground
    database: Database
    cluster: Cluster
    #: What the service's processes are started with.
    environment: dict[str, str]


@contextmanager
def site_of(weather: Weather, folder: Path, stage: Stage) -> Iterator[Site]:
    """A site; at the end of the block its processes are stopped, then its servers."""
    with ExitStack() as stack:
        ground = stack.enter_context(servers_of(weather, folder))
        environment = environment_of(weather, folder, ground, stage)
        migrate.upgrade(ground.url)
        database = Database(ground.url)
        stack.callback(database.dispose)
        stage.register(database)
        cluster = Cluster()
        stack.callback(cluster.stop)
        yield Site(ground, database, cluster, environment)


def environment_of(weather: Weather, folder: Path, ground: Ground, stage: Stage) -> dict[str, str]:
    """What the service's processes are started with."""
    port = free_port()
    return child_environment(
        database_url=ground.url,
        redis_url=ground.redis.url,
        key_prefix=KEY_PREFIX,
        bundles_dir=str(folder / "bundles"),
        log_format="json",
        lease_seconds=str(weather.lease_s),
        heartbeat_seconds=str(weather.lease_s / 4),
        sweep_seconds="0.5",
        batch_audits="16",
        max_attempts="3",
        backoff_base_seconds="0.2",
        backoff_cap_seconds="2",
        intake_idle_claim_seconds="2",
        worker_processes=str(weather.pool),
        port=str(port),
        service_url=f"http://127.0.0.1:{port}",
        **stage.settings,
    )


def _scene(weather: Weather, site: Site) -> Scene:
    ground = site.ground
    return Scene(
        cluster=site.cluster,
        database=site.database,
        redis=ground.redis,
        reclaims=Reclaims(site.database),
        random=random.Random(weather.seed),
        workers=[f"worker-{number}" for number in range(1, weather.workers + 1)],
        producers=list(SHARES),
        lease_s=weather.lease_s,
        pause_s=weather.pause_s,
        postgres=ground.postgres,
        clock=ground.clock,
        disk=ground.disk,
    )


def service_process(name: str, folder: Path, environment: Mapping[str, str]) -> Kept:
    """One process of the service, with a folder of its own for its state."""
    command = worker_command(COMMANDS.get(name, "run"))
    own = dict(environment) | {"WHEREFROM_STATE_DIR": str(folder / f"state-{name}")}
    return Kept(name, command, own, folder / f"{name}.log")


def _producer(name: str, count: int, folder: Path, environment: Mapping[str, str]) -> Kept:
    command = [sys.executable, "-m", "benchmarks.chaos.producers", name, str(folder), str(count)]
    return Kept(name, command, environment, folder / f"{name}.log", ends=True)


def _weather(scene: Scene, canaries: Canaries, weather: Weather, folder: Path) -> None:
    """All faults, each followed by a canary."""
    planned = (
        faults.short_plan(scene, number_of_kills=weather.kills)
        if weather.short
        else faults.plan(scene, number_of_kills=weather.kills, rounds_of_others=weather.rounds_of_others)
    )
    for place, fault in enumerate(planned, start=1):
        write_text(folder / "allowed", str(place / len(planned)))
        if fault.drains:
            _await_empty_stream(canaries)
        said = fault.do(scene)
        took = canaries.send(fault.name, over_stream=fault.over_stream)
        say(f"{place}/{len(planned)}", f"{said}; canary {took:.1f} s")


def _await_empty_stream(canaries: Canaries) -> None:
    """Wait until intake has stored all that Redis holds, for what stands in it now goes with the server."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        with canaries.house.client() as client:
            if not client.xlen(FLAGGED):
                return
        time.sleep(0.05)


def _settle(scene: Scene, canaries: Canaries, producers: list[str]) -> float:
    """Wait until the producers are done, the stream is empty, and no audit is open; seconds that it took."""
    began = time.monotonic()
    while time.monotonic() < began + SETTLE_S:
        done = all(scene.cluster.kept[name].done for name in producers)
        if done and _is_quiet(scene, canaries):
            break
        time.sleep(0.2)
    took = time.monotonic() - began
    say("quiet", f"after {took:.1f} s")
    return took


def _is_quiet(scene: Scene, canaries: Canaries) -> bool:
    try:
        states = reader.queue_health(scene.database).states
        with canaries.house.client() as client:
            waiting = client.xlen(FLAGGED)
    except (DatabaseUnavailable, QueueUnavailable):
        return False
    return not waiting and not states[AuditState.PENDING] and not states[AuditState.RUNNING]


def _tally(weather: Weather, scene: Scene, canaries: Canaries, folder: Path) -> ledger.Tally:
    """The journals beside the database."""
    acknowledged, streamed, poisons = set(canaries.acknowledged), dict(canaries.streamed), set()
    for name, count in counts_of(weather.outputs).items():
        sent = {key_of(name, number): at for number, at in Journal(folder / f"{name}.journal").read().items()}
        poisons |= {key_of(name, number) for number in range(count) if is_poison(name, number)}
        if name.startswith(STREAM):
            streamed |= sent
        else:
            acknowledged |= sent.keys()
    destroyers = {key: scene.redis.destroyer(at) for key, at in streamed.items()}
    return ledger.judge(acknowledged, destroyers, ledger.read_rows(scene.database), poisons=poisons)


def _figures(weather: Weather, scene: Scene, canaries: Canaries, folder: Path) -> dict[str, Any]:
    tally, reclaims = _tally(weather, scene, canaries, folder), scene.reclaims.stop()
    seconds = {fault: found for fault, found in canaries.seconds.items() if fault != _START}
    of_all = [one for found in seconds.values() for one in found]
    limits = ledger.Limits(weather.lease_s + weather.reclaim_after_lease_s, weather.canary_s, FLUSHALL_S)
    times = ledger.Limits(
        max(reclaims, default=0.0),
        max(of_all, default=0.0),
        max(seconds.get(faults.FLUSH.name, []), default=0.0),
    )
    return ledger.counts(tally) | {
        "stream_lost_by": dict(tally.stream_lost_by),
        "fenced": _logged(folder, "audit_fenced"),
        "kills": scene.kills,
        "producer_kills": scene.producer_kills,
        "reclaim_s": ledger.spread(reclaims),
        "canary_s": ledger.spread(of_all),
        "canary_s_by": {name: ledger.spread(found) for name, found in seconds.items()},
        "restarts": {name: one.starts - 1 for name, one in scene.cluster.kept.items()},
        "left_out": _left_out(weather, scene),
        "broken": ledger.broken(tally, times, limits),
    }


def _left_out(weather: Weather, scene: Scene) -> list[str]:
    found = []
    if not scene.clock.environment:
        found.append("clock (no C compiler)")
    if scene.disk is None:
        found.append(
            "disk full (short)" if weather.short else "disk full (only root may mount a small file system)"
        )
    return found


def _logged(folder: Path, event: str) -> int:
    """How often the workers logged an event."""
    mark = f'"event": "{event}"'
    return sum(file.read_text("utf-8", errors="replace").count(mark) for file in folder.glob("worker-*.log"))


def say(what: str, text: str) -> None:
    """Print a line with the time."""
    report([f"{time.strftime('%H:%M:%S')} {what:<8} {text}"])


def shortened(weather: Weather) -> Weather:
    """The storm of `make test`: about a minute of a busy machine, whose times say little, so their limits are wide."""
    return replace(
        weather, short=True, pool=1, lease_s=3.0, pause_s=2.0, canary_s=90.0, reclaim_after_lease_s=60.0
    )
