r"""Faults of every kind while flagged outputs pour in: what is lost, doubled or half-written, and how soon the service answers again.

    python -m benchmarks.chaos                               # 20,000 outputs and 200 SIGKILLs on SQLite
    python -m benchmarks.chaos --engine-db postgresql
    python -m benchmarks.chaos --short                       # 520 outputs, 10 SIGKILLs; part of `make test`
    python -m benchmarks.chaos --real-model                  # 1,000 outputs and 20 SIGKILLs with the tests' real model
    python -m benchmarks.chaos --plain-celery                # the same faults over plain Celery, for comparison

Everything is real: redis-server, PostgreSQL or SQLite, and the processes of the service, with an engine that takes 5 to 50 ms for each output. The plan of
faults follows from `--seed`; what they hit does not. Exit code 1: an invariant does not hold, and the last lines but one name it. With `--json` the last line
holds the figures; `--out` gets all of them. docs/reliability.md explains the words.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.chaos import plain, real_model
from benchmarks.chaos.options import service_command
from benchmarks.chaos.servers import public_folder
from benchmarks.chaos.storm import Weather, shortened, storm
from benchmarks.program import run
from wherefrom.atomic import write_text

#: The figures of the closing line, in their order.
CLOSING = (
    "accepted", "done", "abstained", "dead", "lost", "duplicate_citations", "half_written", "stream_lost", "fenced", "kills",
    "reclaim_s", "canary_s",
)  # fmt: skip
OUTPUTS, KILLS = 20_000, 200
SHORT = (520, 10)
REAL = (1_000, 20)


def closing(result: dict[str, Any]) -> dict[str, Any]:
    """What the closing line holds."""
    return {name: result[name] for name in CLOSING}


def _work(arguments: argparse.Namespace, _: Path) -> dict[str, Any]:
    outputs, kills = SHORT if arguments.short else REAL if arguments.real_model else (OUTPUTS, KILLS)
    weather = Weather(
        engine_db=arguments.engine_db,
        outputs=arguments.outputs or outputs,
        kills=arguments.kills or kills,
        seed=arguments.seed,
        rounds_of_others=arguments.rounds,
    )
    if arguments.short:
        weather = shortened(weather)
    if arguments.canary_limit:
        weather = replace(weather, canary_s=arguments.canary_limit)
    raise_storm = (
        plain.storm if arguments.plain_celery else real_model.storm if arguments.real_model else storm
    )
    with public_folder(keep=arguments.keep) as folder:
        result = raise_storm(weather, folder)
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1))
    return result


def _table(result: dict[str, Any]) -> list[str]:
    lines = [f"{name:<22} {_told(value)}" for name, value in result.items() if name != "broken"]
    return [*lines, *(f"BROKEN: {one}" for one in result["broken"])]


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Raise the storm, print the figures."""
    parser = service_command(__doc__)
    parser.add_argument("--outputs", type=int, help=f"flagged outputs (default: {OUTPUTS:,})")
    parser.add_argument("--kills", type=int, help=f"SIGKILLs of the service's processes (default: {KILLS})")
    parser.add_argument(
        "--seed", type=int, default=13, help="decides the plan of faults (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=1,
        help="times that each other fault comes under each setting of Redis (default: %(default)s)",
    )
    parser.add_argument(
        "--canary-limit",
        type=float,
        help="seconds within which a canary must be answered (default: 15; 90 with --short)",
    )
    parser.add_argument(
        "--short", action="store_true", help="520 outputs, 10 SIGKILLs and the faults that need no waiting"
    )
    parser.add_argument(
        "--real-model", action="store_true", help="the committed tiny model instead of the engine that waits"
    )
    parser.add_argument(
        "--plain-celery", action="store_true", help="plain Celery with acks_late instead of the service"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and journals")
    parser.add_argument("--out", type=Path, help="write all figures here, as JSON")
    result = run(parser, _work, table=_table, closing=closing)
    if result["broken"]:
        sys.exit(1)
