"""The same storm over plain Celery with late acknowledgement: the message carries the work, and what Redis and Celery lose is lost.

Workers with pool processes, producers and Redis are killed as often. There is no intake, sweeper and web to kill, so their share of the SIGKILLs hits workers
too. Redis keeps its file with `everysec`, then without. Two tasks kill their process, as two outputs do.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos import ledger, plain_app
from benchmarks.chaos.cluster import Cluster, Kept
from benchmarks.chaos.outputs import HTTP, is_poison, key_of
from benchmarks.chaos.producers import Journal
from benchmarks.chaos.servers import RedisHouse
from benchmarks.chaos.storm import Weather, say
from wherefrom.atomic import write_text

#: The producers' names; one of them sends the two poisons.
PRODUCERS = (f"{HTTP}-1", "other-2")
CANARY_GIVE_UP_S = 60.0
#: Quiet is when no row came for so long: longer than a message needs to come back.
QUIET_S = 3.0 * plain_app.VISIBILITY_S
SETTLE_S = 600.0


@dataclass
class Plain:
    """What the faults work on."""

    cluster: Cluster
    house: RedisHouse
    folder: Path
    workers: list[str]
    random: random.Random
    kills: int = 0
    producer_kills: int = 0
    canaries: set[str] = field(default_factory=set)
    canary_s: list[float] = field(default_factory=list)

    def kill(self, number: int) -> str:
        """SIGKILL for pool processes, main processes and whole workers."""
        for _ in range(number):
            name = self.random.choice(self.workers)
            while (pid := self.cluster.pid(name)) is None:
                time.sleep(0.05)
            pool, target = self.cluster.pool(name), self.random.choice(["pool", "pool", "parent", "worker"])
            with suppress(ProcessLookupError):
                if target == "worker":
                    os.killpg(pid, signal.SIGKILL)
                else:
                    os.kill(self.random.choice(pool) if pool and target == "pool" else pid, signal.SIGKILL)
        self.kills += number
        return f"{number} killed"

    def kill_producer(self) -> str:
        """SIGKILL for a producer."""
        self.cluster.signal_group(self.random.choice(PRODUCERS), signal.SIGKILL)
        self.producer_kills += 1
        return "a producer killed"

    def canary(self) -> float:
        """Publish a task and wait for its row; seconds."""
        key, began = f"canary-{len(self.canaries)}", time.monotonic()
        self.canaries.add(key)
        app = plain_app.make_app(self.house.url)
        while time.monotonic() < began + CANARY_GIVE_UP_S:
            with suppress(Exception):  # whatever kombu raises while Redis is away
                app.send_task(plain_app.TASK, (key, f"canary {key}"), retry=False)
                break
            time.sleep(0.1)
        while time.monotonic() < began + CANARY_GIVE_UP_S and not self.rows()[key]:
            time.sleep(0.1)
        app.close()
        self.canary_s.append(time.monotonic() - began)
        return self.canary_s[-1]

    def await_empty(self) -> None:
        """Wait until Redis holds no message: what it holds when another server takes its place is no loss of Celery's."""
        deadline = time.monotonic() + QUIET_S
        with self.house.client() as client:
            while time.monotonic() < deadline and (client.llen("celery") or client.hlen("unacked")):
                time.sleep(0.1)

    def rows(self) -> Counter[str]:
        """How often each key was written."""
        results = plain_app.open_results(str(self.folder / "results.db"))
        found = Counter(dict(results.execute("SELECT key, count(*) FROM result GROUP BY key").fetchall()))
        results.close()
        return found


def storm(weather: Weather, folder: Path) -> dict[str, Any]:
    """Raise the storm and count."""
    with ExitStack() as stack:
        house = RedisHouse(folder)
        house.start(ledger.EVERYSEC)
        stack.callback(house.stop)
        cluster = Cluster()
        stack.callback(cluster.stop)
        environment = os.environ | {"STORM_REDIS": house.url, "STORM_RESULTS": str(folder / "results.db")}
        workers = [f"worker-{number}" for number in range(1, weather.workers + 1)]
        scene = Plain(cluster, house, folder, workers, random.Random(weather.seed))
        scene.rows()
        write_text(folder / "allowed", "0")
        for name in workers:
            cluster.add(_worker(name, weather.pool, folder, environment))
        say("start", f"answering after {scene.canary():.1f} s")
        scene.canary_s.clear()
        for name in PRODUCERS:
            cluster.add(_producer(name, weather.outputs // len(PRODUCERS), folder, environment))
        _faults(scene, weather)
        quiet = _settle(scene)
        return _figures(scene, weather) | {"quiet_s": round(quiet, 1)}


def _worker(name: str, pool: int, folder: Path, environment: Mapping[str, str]) -> Kept:
    words = [
        "-A",
        "benchmarks.chaos.plain_app",
        "worker",
        "-c",
        str(pool),
        "-n",
        f"{name}@%h",
        "-l",
        "WARNING",
    ]
    words += ["--without-gossip", "--without-mingle"]
    return Kept(name, [sys.executable, "-m", "celery", *words], environment, folder / f"{name}.log")


def _producer(name: str, count: int, folder: Path, environment: Mapping[str, str]) -> Kept:
    command = [sys.executable, "-m", "benchmarks.chaos.plain_producer", name, str(folder), str(count)]
    return Kept(name, command, environment, folder / f"{name}.log", ends=True)


def _faults(scene: Plain, weather: Weather) -> None:
    left, rounds = weather.kills, max(1, weather.kills // 2)
    specials = {
        rounds // 5: "crash",
        2 * rounds // 5: "flush",
        3 * rounds // 5: "no AOF",
        4 * rounds // 5: "crash",
    }
    for place in range(rounds):
        if specials.get(place) != "no AOF":
            write_text(scene.folder / "allowed", str((place + 1) / rounds))
        number = 2 if place < rounds - 1 else left
        said, left = scene.kill(number), left - number
        special = specials.get(place)
        if special == "crash":
            scene.house.crash()
        elif special == "flush":
            scene.house.flush()
        elif special == "no AOF":
            scene.await_empty()
            scene.house.start(ledger.NO_AOF)
        if place % 10 == 5:
            said = f"{said}, {scene.kill_producer()}"
        say(f"{place + 1}/{rounds}", f"{said}, {special or 'no more'}; canary {scene.canary():.1f} s")


def _settle(scene: Plain) -> float:
    """Wait until the producers are done and no row has come for long; seconds until the last row."""
    began = last = time.monotonic()
    before = -1
    while time.monotonic() < began + SETTLE_S:
        written = scene.rows().total()
        if written != before or not all(scene.cluster.kept[name].done for name in PRODUCERS):
            before, last = written, time.monotonic()
        if time.monotonic() > last + QUIET_S:
            break
        time.sleep(1.0)
    say("quiet", f"after {last - began:.1f} s")
    return last - began


def _figures(scene: Plain, weather: Weather) -> dict[str, Any]:
    published = set(scene.canaries)
    for name in PRODUCERS:
        published |= {key_of(name, number) for number in Journal(scene.folder / f"{name}.journal").read()}
    rows = scene.rows()
    poisons = {
        key_of(name, number)
        for name in PRODUCERS
        for number in range(weather.outputs)
        if is_poison(name, number)
    }
    lost = len(published - rows.keys() - poisons)
    again = rows.total() - len(rows)
    return {
        "accepted": len(published | rows.keys()),
        "done": len(rows),
        "abstained": 0,
        "dead": 0,
        "lost": lost,
        "duplicate_citations": again,
        "half_written": 0,
        "stream_lost": 0,
        "fenced": 0,
        "kills": scene.kills,
        "producer_kills": scene.producer_kills,
        "poisons_unanswered": len(published & poisons - rows.keys()),
        "reclaim_s": ledger.spread([]),
        "canary_s": ledger.spread(scene.canary_s),
        "canaries_given_up": sum(one >= CANARY_GIVE_UP_S for one in scene.canary_s),
        "restarts": {name: one.starts - 1 for name, one in scene.cluster.kept.items()},
        "broken": [
            f"{name} is {number}" for name, number in (("lost", lost), ("duplicates", again)) if number
        ],
    }
