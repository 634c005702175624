"""The faults of a storm: what each does to a running service. Which come when is decided by the seed (`plan`)."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

from sqlalchemy import select

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.ledger import ALWAYS, EVERYSEC, NO_AOF
from benchmarks.chaos.servers import Clock, Disk, PostgresHouse, RedisHouse
from benchmarks.chaos.watching import Reclaims
from db.models import Audit
from db.session import Database
from wherefrom.errors import DatabaseUnavailable

#: What is killed with SIGKILL, and how often of ten times: whole workers, their main process alone, pool processes, the others.
TARGETS = {"worker": 1, "worker parent": 2, "pool": 3, "intake": 2, "sweeper": 1, "web": 1}
#: How long a process that is about to be killed is waited for, when it has just been killed, seconds.
_ALIVE_S = 10.0
_OF_WORKERS = {"worker", "worker parent", "pool"}
#: Processes that are killed at once, at most.
AT_ONCE = 3
#: How far the clock is set, and for how long it stays so, seconds.
CLOCK_S, CLOCK_HOLD_S = 3600, 2.0
FULL_S = 4.0
#: A worker that is stopped within its work is looked for so long, seconds.
_CATCH_S = 15.0


@dataclass
class Scene:
    """What faults work on."""

    cluster: Cluster
    database: Database
    redis: RedisHouse
    reclaims: Reclaims
    random: random.Random
    workers: Sequence[str]
    producers: Sequence[str]
    lease_s: float
    #: How long Redis is stopped, seconds.
    pause_s: float
    clock: Clock
    postgres: PostgresHouse | None = None
    disk: Disk | None = None
    deck: list[str] = field(default_factory=list)
    kills: int = 0
    producer_kills: int = 0

    def kill_some(self, number: int) -> str:
        """SIGKILL for so many different ones at once; what they were."""
        killed: dict[str, str] = {}
        while len(killed) < number:
            target = self._target()
            name = self.random.choice(self.workers) if target in _OF_WORKERS else target
            if name not in killed and self._kill(target, name):
                killed[name] = target
        self.kills += number
        return ", ".join(killed.values())

    def _target(self) -> str:
        """The next of `TARGETS` from a shuffled deck, so that each has its share however few are killed."""
        if not self.deck:
            self.deck = [target for target, often in TARGETS.items() for _ in range(often)]
            self.random.shuffle(self.deck)
        return self.deck.pop()

    def kill_producer(self) -> str:
        """SIGKILL for a producer with what it started."""
        alive = [name for name in self.producers if self.cluster.pid(name) is not None]
        if not alive:
            return "no producer was left"
        name = self.random.choice(alive)
        self.cluster.signal_group(name, signal.SIGKILL)
        self.producer_kills += 1
        return f"{name} killed"

    def _kill(self, target: str, name: str) -> bool:
        """Kill it; False where it is not there."""
        deadline = time.monotonic() + _ALIVE_S
        while (pid := self.cluster.pid(name)) is None or (target == "pool" and not self.cluster.pool(name)):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        pool = self.cluster.pool(name) if target in _OF_WORKERS else []
        doomed = [self.random.choice(pool)] if target == "pool" and pool else pool
        held = self.reclaims.held_by(doomed) if doomed and target != "worker parent" else []
        with suppress(ProcessLookupError):
            if target == "worker":
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(doomed[0] if target == "pool" else pid, signal.SIGKILL)
        self.reclaims.expect(held)
        return True

    def pause_past_lease(self) -> str:
        """Stop a worker within its work until another one has its audits, then let it write."""
        name = self.random.choice(self.workers)
        held = self._stopped_at_work(name)
        if not held:
            return "no worker was found at work"
        self.reclaims.expect(held)
        deadline = time.monotonic() + self.lease_s + 10
        while time.monotonic() < deadline and self._still_held(held):
            time.sleep(0.1)
        self.cluster.signal_group(name, signal.SIGCONT)
        return f"paused past its lease with {len(held)} audits"

    def _stopped_at_work(self, name: str) -> list[tuple[int, int]]:
        """Stop a worker that holds audits and no lock of the database: on SQLite a stopped writer would stop everybody."""
        deadline = time.monotonic() + _CATCH_S
        while time.monotonic() < deadline:
            pool = self.cluster.pool(name)
            if self.reclaims.held_by(pool):
                self.cluster.signal_group(name, signal.SIGSTOP)
                time.sleep(0.05)  # what was on its way to the database is committed then
                held = self.reclaims.held_by(pool)
                if held and self._is_free(held):
                    return held
                self.cluster.signal_group(name, signal.SIGCONT)
            time.sleep(0.01)
        return []

    def _is_free(self, held: Sequence[tuple[int, int]]) -> bool:
        """Nobody has these rows locked."""
        mine = select(Audit.id).where(Audit.id.in_([number for number, _ in held]))
        try:
            with self.database.writing_at_once() as session:
                session.execute(mine.with_for_update(nowait=True))
        except DatabaseUnavailable:
            return False
        return True

    def _still_held(self, held: Sequence[tuple[int, int]]) -> bool:
        pairs = dict(held)
        try:
            with self.database.reading() as session:
                rows = session.execute(select(Audit.id, Audit.attempt).where(Audit.id.in_(pairs))).all()
        except DatabaseUnavailable:
            return True
        return any(attempt == pairs[number] for number, attempt in rows)


@dataclass(frozen=True)
class Fault:
    """One fault, as it is planned."""

    name: str
    #: Does it; what exactly was done.
    act: Callable[[Scene], str]
    #: The canary after it goes over the stream.
    over_stream: bool = False
    #: Comes when nothing is left in the stream.
    drains: bool = False
    #: Nobody can claim an audit while it lasts.
    server_away: bool = False

    def do(self, scene: Scene) -> str:
        """Do it; what exactly was done."""
        with scene.reclaims.server_away() if self.server_away else nullcontext():
            return self.act(scene)


def _told(act: Callable[[], object], said: str) -> str:
    act()
    return said


def kills(number: int) -> Fault:
    """So many processes at once."""
    return Fault("SIGKILL", lambda scene: scene.kill_some(number))


def redis_mode(mode: str) -> Fault:
    """Not a fault: from now on Redis keeps its file in this way."""
    name = f"Redis with {mode}"
    return Fault(
        name, lambda scene: _told(lambda: scene.redis.start(mode), name), over_stream=True, drains=True
    )


PRODUCER = Fault("producer killed", lambda scene: scene.kill_producer())
REDIS_CRASH = Fault(
    "Redis SIGKILL",
    lambda scene: _told(scene.redis.crash, "Redis killed"),
    over_stream=True,
    server_away=True,
)
FLUSH = Fault("FLUSHALL", lambda scene: _told(scene.redis.flush, "Redis emptied"), over_stream=True)
REDIS_PAUSE = Fault(
    "Redis SIGSTOP",
    lambda scene: _told(lambda: scene.redis.pause(scene.pause_s), "Redis stopped"),
    over_stream=True,
    server_away=True,
)
PAUSE = Fault("worker paused past its lease", lambda scene: scene.pause_past_lease())


def _postgres(name: str, act: Callable[[PostgresHouse], object]) -> Fault:
    def done(scene: Scene) -> str:
        if scene.postgres is not None:
            act(scene.postgres)
        return name

    return Fault(name, done, server_away=True)


RESTART = _postgres("PostgreSQL restart", lambda house: house.restart(signal.SIGINT))
CRASH = _postgres("PostgreSQL crash", lambda house: house.restart(signal.SIGQUIT))
BACKENDS = _postgres("PostgreSQL backends killed", lambda house: house.kill_backends())
FAILOVER = _postgres("read-only failover", lambda house: house.fail_over())


def _clock(name: str, offset_s: int) -> Fault:
    def done(scene: Scene) -> str:
        scene.clock.set(offset_s)
        time.sleep(CLOCK_HOLD_S)
        return name

    return Fault(name, done)


#: Under each setting of Redis one: forward from the true time, back to it, and back once more.
CLOCKS = {
    ALWAYS: _clock("clock an hour forward", CLOCK_S),
    EVERYSEC: _clock("clock an hour back", 0),
    NO_AOF: _clock("clock an hour back", -CLOCK_S),
}


def _full(scene: Scene) -> str:
    if scene.disk is not None:
        scene.disk.fill(FULL_S)
    if scene.postgres is not None:
        scene.postgres.revive()
    return "disk full"


DISK = Fault("disk full", _full, server_away=True)


def plan(scene: Scene, *, number_of_kills: int, rounds_of_others: int) -> list[Fault]:
    """The faults in their order: SIGKILLs in groups of one to three, and every other fault `rounds_of_others` times between them.

    Redis begins with `always`, goes on with `everysec`, and ends without a file.
    """
    left, groups = number_of_kills, []
    while left:
        groups.append(min(left, scene.random.randint(1, AT_ONCE)))
        left -= groups[-1]
    parts: list[list[Fault]] = []
    for mode in (ALWAYS, EVERYSEC, NO_AOF):
        part = [kills(number) for number in groups[len(parts) :: 3]]
        others = [REDIS_CRASH, *_others(scene, mode)] * rounds_of_others
        for fault in others:
            part.insert(scene.random.randint(0, len(part)), fault)
        parts.append([redis_mode(mode), *part])
    return [fault for part in parts for fault in part]


def short_plan(scene: Scene, *, number_of_kills: int) -> list[Fault]:
    """The faults of the short storm: SIGKILLs, and what needs no waiting; Redis keeps its file with `always`."""
    groups = [AT_ONCE] * (number_of_kills // AT_ONCE) + [1] * (number_of_kills % AT_ONCE)
    between = [PAUSE, REDIS_CRASH, PRODUCER, FLUSH, REDIS_PAUSE]
    if scene.postgres is not None:
        between += [RESTART, BACKENDS]
    if scene.clock.environment:
        between += [CLOCKS[ALWAYS], CLOCKS[EVERYSEC]]
    planned = [kills(number) for number in groups]
    for place, fault in enumerate(between):
        planned.insert(1 + place * (len(planned) - 1) // len(between), fault)
    return planned


def _others(scene: Scene, mode: str) -> list[Fault]:
    """The faults beside SIGKILL and crashes of Redis, a part of them under each setting of Redis."""
    found = {
        ALWAYS: [PAUSE, PRODUCER, PRODUCER],
        EVERYSEC: [FLUSH, PRODUCER, PAUSE],
        NO_AOF: [REDIS_PAUSE, PRODUCER, PAUSE],
    }[mode]
    if scene.postgres is not None:
        found += {ALWAYS: [RESTART, BACKENDS], EVERYSEC: [FAILOVER], NO_AOF: [CRASH, BACKENDS]}[mode]
    if scene.clock.environment:
        found.append(CLOCKS[mode])
    if scene.disk is not None and mode == EVERYSEC:
        found.append(DISK)
    return found
