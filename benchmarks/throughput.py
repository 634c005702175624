r"""From the stream to committed citations: the share of the engine's own rate that the service reaches, and what more processes bring.

    python -m benchmarks.throughput [--engine-db sqlite|postgresql] [--processes 1,2,4] [--seconds 20] [--json]

The processes of `benchmarks.chaos` with nothing killed: intake, sweeper and one worker over a real Redis. The engine is handed in (`WHEREFROM_ENGINE`): it sleeps 5 to 50 ms for each output
and answers with five citations, so processes do not compete for processors, and its own rate is known from the outputs: that of one process is one over the mean sleep.

For each number of pool processes a worker is started and answers one output; then all outputs are put on the stream at once. Two rates are told. *Whole* counts from the first entry to the last
commit, with the filling and the emptying of the processes. *Steady* counts between the commits of the first and the last tenth, by the database's clock. The share is the steady rate over the
engine's own rate times the processes; the speed-up is the steady rate over that of one process in the same run.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from sqlalchemy import ColumnElement, func, select

from benchmarks.chaos.cluster import Cluster
from benchmarks.chaos.options import service_command
from benchmarks.chaos.outputs import FLAGGED, number_of, record, seconds_of
from benchmarks.chaos.servers import RedisHouse, public_folder
from benchmarks.chaos.storm import STORM_STAGE, Weather, service_process, site_of
from benchmarks.program import numbers, run
from db.models import Audit
from db.session import Database
from wherefrom.errors import ConfigurationError
from wherefrom.messages import RECORD_FIELD

WORKER = "worker-1"
#: Pool processes that are measured.
PROCESSES = "1,2,4"
#: Share of the commits at each end that the steady rate leaves out.
EDGE = 0.1
#: Fewest outputs: below, batches are too few for a rate.
FEWEST = 40
#: Longest time until the first answer, and beyond the engine's own time until the last one, seconds.
PATIENCE_S = 120.0
_POLL_S = 0.1
#: Settings of the service that a storm makes small; here they are those of a release.
_AS_RELEASED = {
    "WHEREFROM_BATCH_AUDITS": "32",
    "WHEREFROM_LEASE_SECONDS": "60",
    "WHEREFROM_HEARTBEAT_SECONDS": "15",
    "WHEREFROM_SWEEP_SECONDS": "2",
}


@dataclass(frozen=True)
class Flood:
    """Outputs that are sent at once."""

    #: Of the producer; part of every key.
    name: str
    count: int

    def records(self) -> list[dict[str, Any]]:
        """The outputs."""
        return [record(self.name, number) for number in range(self.count)]

    @property
    def engine_s(self) -> float:
        """What one process of the engine takes for all of them."""
        return sum(seconds_of(number_of(one["completion"])) for one in self.records())


def steady_rate(finished: Sequence[datetime]) -> float:
    """Answers per second between the commits of the first and the last tenth; the answers of one commit have one moment.

    Args:
        finished: moments of all answers, in order.

    Raises:
        ConfigurationError: all of them are in the same moment.
    """
    first, last = (finished[round(share * (len(finished) - 1))] for share in (EDGE, 1 - EDGE))
    seconds = (last - first).total_seconds()
    if seconds <= 0:
        raise ConfigurationError("all outputs were answered in one moment; send more of them")
    return sum(first < moment <= last for moment in finished) / seconds


def throughput(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure each number of processes, one after the other, on one database."""
    processes = numbers(arguments.processes, option="--processes")
    weather = Weather(arguments.engine_db, 0, 0, 0, workers=1, short=True)
    with site_of(weather, folder, STORM_STAGE) as site:
        environment = site.environment | _AS_RELEASED
        for name in ("intake", "sweeper"):
            site.cluster.add(service_process(name, folder, environment))
        service = _Service(site.database, site.ground.redis, folder, environment)
        rows = [service.measure(number, seconds=arguments.seconds) for number in processes]
    for row in rows:
        row["speed_up"] = row["steady_per_second"] / rows[0]["steady_per_second"]
    return {"engine_db": arguments.engine_db, "load_average": round(os.getloadavg()[0], 1), "rows": rows}


@dataclass(frozen=True)
class _Service:
    """The running service, without a worker."""

    database: Database
    house: RedisHouse
    folder: Path
    environment: Mapping[str, str]

    def measure(self, processes: int, *, seconds: float) -> dict[str, float]:
        """Flood a worker of so many processes with what they need about `seconds` for."""
        own = {**self.environment, "WHEREFROM_WORKER_PROCESSES": str(processes)}
        workers = Cluster()
        try:
            workers.add(service_process(WORKER, self.folder, own))
            for number in range(processes):  # a hint for each, so that all of them are up
                self._send(Flood(f"first-{processes}-{number}", 1), patience_s=PATIENCE_S)
            flood = Flood(f"flood-{processes}", max(FEWEST, round(processes * seconds / 0.0275)))
            took, finished = self._send(flood, patience_s=PATIENCE_S + flood.engine_s)
        finally:
            workers.stop()
        engine_rate, steady = flood.count / flood.engine_s, steady_rate(finished)
        return {
            "processes": processes,
            "outputs": flood.count,
            "engine_per_second": engine_rate,
            "whole_per_second": flood.count / took,
            "steady_per_second": steady,
            "share_of_engine": steady / (processes * engine_rate),
        }

    def _send(self, flood: Flood, *, patience_s: float) -> tuple[float, list[datetime]]:
        """Send outputs and wait for the last commit; the seconds that took, and the moments of all commits."""
        before, began = self._last_id(), time.monotonic()
        with self.house.client() as client:
            _put(client, flood)
        while (answered := self._answered(before)) < flood.count:
            if time.monotonic() > began + patience_s:
                raise ConfigurationError(
                    f"{answered} of {flood.count} outputs were answered in {patience_s:.0f} s; see the logs in {self.folder}"
                )
            time.sleep(_POLL_S)
        return time.monotonic() - began, self._moments(before)

    def _last_id(self) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.max(Audit.id))) or 0

    def _answered(self, before: int) -> int:
        with self.database.reading() as session:
            return session.scalar(select(func.count()).where(*_answers_after(before))) or 0

    def _moments(self, before: int) -> list[datetime]:
        with self.database.reading() as session:
            ended = select(Audit.finished_at).where(*_answers_after(before)).order_by(Audit.finished_at)
            return [moment for moment in session.scalars(ended) if moment is not None]


def _answers_after(before: int) -> tuple[ColumnElement[bool], ...]:
    return Audit.id > before, Audit.finished_at.is_not(None)


def _put(client: redis.Redis, flood: Flood) -> None:
    with client.pipeline(transaction=False) as pipe:
        for one in flood.records():
            pipe.xadd(FLAGGED, {RECORD_FIELD: json.dumps(one)})
        pipe.execute()


def table(result: dict[str, Any]) -> list[str]:
    """The rates for people."""
    lines = [
        f"{result['engine_db']}, load average {result['load_average']}",
        f"{'processes':>9}{'outputs':>9}{'engine/s':>10}{'whole/s':>10}{'steady/s':>10}{'share':>8}{'speed-up':>10}",
    ]
    return lines + [
        f"{one['processes']:>9}{one['outputs']:>9}{one['engine_per_second']:>10.1f}{one['whole_per_second']:>10.1f}"
        f"{one['steady_per_second']:>10.1f}{one['share_of_engine']:>8.1%}{one['speed_up']:>10.2f}"
        for one in result["rows"]
    ]


def _work(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    with public_folder() as folder:
        return throughput(arguments, folder)


def main() -> None:
    """Measure and print."""
    parser = service_command(__doc__)
    parser.add_argument(
        "--processes",
        default=PROCESSES,
        help="pool processes of the worker, one measurement each (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="engine time of each process and measurement (default: %(default)s)",
    )
    run(parser, _work, table=table)


if __name__ == "__main__":
    main()
