r"""Does the service grow? Memory, open files, connections and threads of every process, under a steady load of everything, and their slopes.

    python -m benchmarks.soak [--minutes 30] [--engine-db sqlite|postgresql] [--rate 4] [--json]

The processes of `benchmarks.chaos` with nothing killed: web, intake, sweeper and one worker with two pool processes, over a real Redis. Each second, `rate` outputs come, half of them over HTTP and half over the
stream, and somebody reads a list, an audit, the page of today and `/metrics`. Every few seconds each process is looked at in `/proc`.

The first fifth is warm-up and left out: caches fill, pools open. The rest is cut into ten blocks; the slope is that of a straight line through their means, with its 95 % interval (t with 8 degrees of freedom), so that
noise within a block, which is no noise from block to block, counts once. A process *grows* where the whole interval lies above zero and the growth over the run is more than what `ALLOWED` lets pass.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.options import service_command
from benchmarks.chaos.outputs import FLAGGED, record
from benchmarks.chaos.servers import public_folder
from benchmarks.chaos.storm import (
    COMMANDS,
    OTHERS,
    STORM_STAGE,
    Ground,
    Weather,
    service_process,
    site_of,
)
from benchmarks.chaos.watching import Canaries
from benchmarks.program import run
from db.reading import reader
from db.session import Database
from wherefrom.errors import ConfigurationError, TransientError
from wherefrom.messages import RECORD_FIELD
from wherefrom.retraining.effects import t_quantile

WORKER = "worker-1"
#: Share of the run that is warm-up, and blocks of the rest.
WARM_UP, BLOCKS = 0.2, 10
#: Growth over the whole run that is none: one more arena of the allocator, one more connection of a pool.
ALLOWED = {"memory_mb": 8.0, "files": 4.0, "sockets": 4.0, "threads": 4.0}
#: Seconds between two looks, at most.
LOOK_S = 5.0
_READS = ("/", "/audits/1", "/today", "/v1/audits", "/metrics")
_PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass
class Watch:
    """What was seen of each process: seconds since the start, and each figure."""

    began: float = field(default_factory=time.monotonic)
    seen: dict[str, list[tuple[float, dict[str, float]]]] = field(default_factory=lambda: defaultdict(list))

    def look(self, processes: Mapping[str, int]) -> None:
        """Note every process that lives."""
        at = time.monotonic() - self.began
        for name, pid in processes.items():
            if (found := figures_of(pid)) is not None:
                self.seen[name].append((at, found))


def figures_of(pid: int) -> dict[str, float] | None:
    """Memory in use (MB), open files, sockets and threads of a process; None where it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        resident = int((folder / "statm").read_text().split()[1])
        links = [link for one in (folder / "fd").iterdir() if (link := _link(one)) is not None]
        threads = len(list((folder / "task").iterdir()))
    except OSError:
        return None
    sockets = sum(one.startswith("socket:") for one in links)
    return {
        "memory_mb": resident * _PAGE_MB,
        "files": float(len(links) - sockets),
        "sockets": float(sockets),
        "threads": float(threads),
    }


def _link(file: Path) -> str | None:
    """What an open file leads to; None where it was closed meanwhile."""
    try:
        return str(file.readlink())
    except OSError:
        return None


def slope_of(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Slope per hour and its 95 % interval, of a line through the means of blocks.

    Args:
        points: seconds and values, in order; at least one for each block.

    Raises:
        ConfigurationError: there are fewer points than blocks.
    """
    if len(points) < BLOCKS:
        raise ConfigurationError(f"{len(points)} looks are too few for a slope; let it run longer")
    blocks = np.array_split(np.array(points), BLOCKS)
    hours, means = (np.array([one[:, column].mean() for one in blocks]) for column in (0, 1))
    hours = hours / 3600
    centred = hours - hours.mean()
    spread = float(centred @ centred)
    slope = float(centred @ means) / spread
    left = means - means.mean() - slope * centred
    half = t_quantile(BLOCKS - 2) * float(np.sqrt(left @ left / (BLOCKS - 2) / spread))
    return slope, slope - half, slope + half


def figures(watch: Watch, *, seconds: float) -> dict[str, Any]:
    """Slopes of every process, and what grows."""
    found: dict[str, Any] = {"processes": {}, "grows": []}
    for name, looks in watch.seen.items():
        warm = [one for one in looks if one[0] >= WARM_UP * seconds]
        rows = {}
        for figure, allowed in ALLOWED.items():
            slope, low, high = slope_of([(at, values[figure]) for at, values in warm])
            growth = slope * seconds / 3600
            rows[figure] = {
                "first": round(warm[0][1][figure], 1),
                "last": round(warm[-1][1][figure], 1),
                "per_hour": round(slope, 2),
                "interval": [round(low, 2), round(high, 2)],
            }
            if low > 0 and growth > allowed:
                found["grows"].append(
                    f"{name}: {figure} by {slope:.1f} an hour (95 % {low:.1f} to {high:.1f})"
                )
        found["processes"][name] = rows
    return found


@dataclass
class Load:
    """Sends and reads at a steady rate."""

    url: str
    ground: Ground
    rate: float
    sent: int = 0
    reads: int = 0
    failed: int = 0

    def second(self, client: httpx.Client) -> None:
        """The load of one second."""
        numbers = range(self.sent, self.sent + max(2, round(self.rate)))
        self.sent = numbers.stop
        half = len(numbers) // 2
        # numbers of a name that holds no poisons
        over_stream, over_http = (
            [record("soak", one) for one in some] for some in (numbers[:half], numbers[half:])
        )
        with self.ground.redis.client() as redis:
            for one in over_stream:
                redis.xadd(FLAGGED, {RECORD_FIELD: json.dumps(one)})
        self._count(lambda: client.post("/v1/flagged", json={"records": over_http}))
        for path in _READS:
            self._count(lambda path=path: client.get(path))  # type: ignore[misc]  # mypy knows no type of such a default
            self.reads += 1

    def _count(self, ask: Callable[[], httpx.Response]) -> None:
        try:
            self.failed += ask().status_code >= 400
        except httpx.HTTPError:
            self.failed += 1


def soak(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the service under load and look at it."""
    seconds = 60.0 * arguments.minutes
    weather = Weather(arguments.engine_db, 0, 0, 0, workers=1, pool=2, short=True)
    with site_of(weather, folder, STORM_STAGE) as site:
        cluster = site.cluster
        for name in (*OTHERS, WORKER):
            cluster.add(service_process(name, folder, site.environment))
        url = site.environment["WHEREFROM_SERVICE_URL"]
        Canaries(site.database, url, site.ground.redis, STORM_STAGE.model).send("start")
        watch, load = Watch(), Load(url, site.ground, arguments.rate)
        with httpx.Client(base_url=url, timeout=30.0) as client:
            _run(watch, load, cluster, client=client, seconds=seconds)
        states = _states(site.database)
        restarts = {name: one.starts - 1 for name, one in cluster.kept.items() if one.starts > 1}
    return {
        "minutes": arguments.minutes,
        "engine_db": arguments.engine_db,
        "sent": load.sent,
        "reads": load.reads,
        "failed": load.failed,
        "states": states,
        "restarts": restarts,
        **figures(watch, seconds=seconds),
    }


def _run(watch: Watch, load: Load, cluster: Cluster, *, client: httpx.Client, seconds: float) -> None:
    """Load every second, and a look every few seconds, until the time is over."""
    every = min(LOOK_S, seconds / 60)
    due = look = watch.began
    while time.monotonic() < watch.began + seconds:
        load.second(client)
        if time.monotonic() >= look:
            watch.look(_processes(cluster))
            look += every
        due = max(due + 1.0, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))


def _processes(cluster: Cluster) -> dict[str, int]:
    """Process ids by name, those of the worker's pool by their place."""
    found = {name: pid for name in (*COMMANDS, WORKER) if (pid := cluster.pid(name)) is not None}
    return found | {
        f"{WORKER} pool {place}": pid for place, pid in enumerate(sorted(cluster.pool(WORKER)), start=1)
    }


def _states(database: Database) -> dict[str, int]:
    try:
        return {state.value: count for state, count in reader.queue_health(database).states.items() if count}
    except TransientError:
        return {}


def table(result: dict[str, Any]) -> list[str]:
    """The slopes for people."""
    lines = [
        f"{result['sent']} outputs sent, {result['reads']} reads, {result['failed']} failed; audits: {result['states']}; restarts: {result['restarts'] or 'none'}",
        f"{'process':<18}{'figure':<12}{'first':>9}{'last':>9}{'per hour':>11}  95 % interval",
    ]
    for name, rows in result["processes"].items():
        for figure, one in rows.items():
            low, high = one["interval"]
            lines.append(
                f"{name:<18}{figure:<12}{one['first']:>9.1f}{one['last']:>9.1f}{one['per_hour']:>11.1f}  {low:.1f} to {high:.1f}"
            )
    return [*lines, *(f"GROWS: {one}" for one in result["grows"])]


def _work(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    with public_folder() as folder:
        return soak(arguments, folder)


def main() -> None:
    """Soak, print the slopes; exit code 1 where something grows."""
    parser = service_command(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=4.0, help="outputs a second (default: %(default)s)")
    if run(parser, _work, table=table)["grows"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
