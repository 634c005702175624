"""What the pages of the desk cost in a large database: p50 and p95 of each page's query, and the plans that they run by.

    python -m benchmarks.desk                                    # 100,000 audits on SQLite
    python -m benchmarks.desk --audits 1000000 --compare FILE    # beside the figures of a smaller run: their ratio
    python -m benchmarks.desk --database-url postgresql://...    # an empty database that it may fill

A query is what a page asks the database for, with the records that it makes of the answer, in this process; rendering is left out. Each is asked
once to warm up, then `--repeat` times. Processor time is that of this process and of PostgreSQL's, where it runs on this machine: it says more than the clock
where others use the machine. `--out` gets the figures as JSON after each query, `--plans` a file per engine with the plan of every statement.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, event, text

from benchmarks.desk_filling import fill
from benchmarks.desk_further import further
from benchmarks.desk_queries import COMPARED, TODAY, Query, end_lately, queries
from benchmarks.program import command, report, run
from db import parts
from db.comparison import comparisons
from db.reading import listings, source_facts
from db.session import Database
from wherefrom.atomic import write_text
from wherefrom.records import AuditFilter

#: Aims of the 95th percentile, milliseconds, by the first word of a query's name.
AIMS_MS = {"list": 100.0, "reverse": 200.0, "search": 500.0}
#: Largest ratio of two runs that is meant to hold.
RATIO = 1.5
#: After so long a query is asked no more, seconds, but so often at least.
LONGEST_S, LEAST = 20.0, 3


def measured(db: Database, ask: Query, *, repeat: int) -> dict[str, float]:
    """Median and 95th percentile of the time, and the mean of the processor time, milliseconds; asked less often where it takes long."""
    ask(db)
    took: list[float] = []
    began_at, busy = time.monotonic(), processor_seconds(db)
    while len(took) < repeat and (len(took) < LEAST or time.monotonic() - began_at < LONGEST_S):
        began = time.perf_counter()
        ask(db)
        took.append(1000 * (time.perf_counter() - began))
    busy = 1000 * (processor_seconds(db) - busy) / len(took)
    return {
        "p50_ms": float(np.percentile(took, 50)),
        "p95_ms": float(np.percentile(took, 95)),
        "cpu_ms": busy,
        "asked": len(took),
    }


def processor_seconds(db: Database) -> float:
    """Processor time of this process, and of PostgreSQL's processes for this database where they run on this machine.

    A process that PostgreSQL starts to help with one statement is counted at its end, with its parent's children.
    """
    own = time.process_time()
    if db.dialect == "sqlite":
        return own
    with db.reading() as session:
        found = session.scalars(
            text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND leader_pid IS NULL")
        )
        stats = [one for pid in found if (one := _stat(pid)) is not None]
    parent = _stat(int(stats[0][_PARENT])) if stats else None
    ticks = sum(int(one[place]) for one in stats for place in _OWN)
    ticks += sum(int(parent[place]) for place in _OF_CHILDREN) if parent else 0
    return own + ticks / os.sysconf("SC_CLK_TCK")


#: Where the fields stand in `/proc/PID/stat` behind the name of the command.
_PARENT, _OWN, _OF_CHILDREN = 1, (11, 12), (13, 14)


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None


@contextmanager
def noted_statements() -> Iterator[list[tuple[str, Any]]]:
    """The statements that run meanwhile, with their parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        noted.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def plans(db: Database, asked: dict[str, Query]) -> str:
    """The plan of every statement of every query."""
    lines = []
    explain = "EXPLAIN QUERY PLAN " if db.dialect == "sqlite" else "EXPLAIN "
    for name, ask in asked.items():
        with noted_statements() as noted:
            ask(db)
        noted = [one for one in noted if one[0].lstrip().upper().startswith(("SELECT", "WITH"))]
        lines.append(f"## {name}: {len(noted)} statements")
        for statement, parameters in noted:
            with db.reading() as session:
                found = session.connection().exec_driver_sql(explain + statement, parameters)
                lines += [f"  {row[-1]}" for row in found]
            lines.append("")
    return "\n".join(lines)


def _work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    audits = arguments.audits
    url = arguments.database_url or f"sqlite:///{folder / 'desk.db'}"
    result = _earlier(arguments)
    if not arguments.filled:
        began = time.monotonic()
        fill(url, audits=audits, where=folder, further=further(audits))
        result["filled_s"] = time.monotonic() - began
        report([f"filled in {result['filled_s']:.0f} s"])
    with Database(url) as db:
        result |= {"engine": db.dialect, "audits": audits, "bytes": _size(db)}
        _keep(arguments, result)
        result["known"] = result.get("known") or known(db)
        result["compared"] = result.get("compared") or _compare(db)
        _keep(arguments, result)
        only = arguments.only or [""]
        asked = {name: ask for name, ask in queries(audits).items() if any(one in name for one in only)}
        _ask_all(db, asked, arguments, result)
        if arguments.plans:
            arguments.plans.mkdir(parents=True, exist_ok=True)
            write_text(arguments.plans / f"{db.dialect}-{audits}.txt", plans(db, asked))
    return result


def _earlier(arguments: argparse.Namespace) -> dict[str, Any]:
    """What an earlier run over the same database wrote; with `--filled` it is gone on with."""
    if not arguments.filled or arguments.out is None or not arguments.out.is_file():
        return {"queries": {}}
    found: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8"))
    return found


def _keep(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write what is known so far, so that it is kept whatever happens."""
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1))


def _ask_all(
    db: Database, asked: dict[str, Query], arguments: argparse.Namespace, result: dict[str, Any]
) -> None:
    """Measure each query that has no figures yet, or that `--only` names."""
    smaller = _smaller(arguments.compare)
    for name, ask in asked.items():
        if name in result["queries"] and not arguments.only:
            continue
        if name == TODAY:
            end_lately(db)
        one = result["queries"][name] = measured(db, ask, repeat=arguments.repeat)
        if name in smaller:
            one["ratio"] = one["p50_ms"] / smaller[name]["p50_ms"]
            one["cpu_ratio"] = one["cpu_ms"] / max(smaller[name]["cpu_ms"], 0.1)
        _keep(arguments, result)


def known(db: Database) -> dict[str, dict[str, float]]:
    """Let the sweeper work out what pages tell with its age: listings and sources."""
    listings.facts(db, AuditFilter(), level=0.1, wait=False)
    source_facts.known(db)
    return {
        "all audits, judged": _worked_out(listings.rounds(db).go_on),
        "all sources": _worked_out(source_facts.rounds(db).go_on),
    }


def _worked_out(go_on: Callable[[], int]) -> dict[str, float]:
    """Seconds until it is done, and the longest round, for which the sweeper's other work waits; a small database leaves nothing to do."""
    began, longest, rounds = time.monotonic(), 0.0, 0
    while True:
        at = time.monotonic()
        done = go_on()
        took = time.monotonic() - at
        longest, rounds = max(longest, took), rounds + 1
        if done or took < parts.ROUND_S:
            break
    return {"seconds": time.monotonic() - began, "rounds": rounds, "longest_s": longest}


def _compare(db: Database) -> dict[str, float]:
    """Let the sweeper work two bundles out."""
    comparisons.compare_bundles(db, *COMPARED)
    return _worked_out(lambda: comparisons.refresh(db))


def _smaller(file: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {} if file is None else json.loads(file.read_text(encoding="utf-8"))["queries"]
    return found


def _size(db: Database) -> int:
    size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    with db.reading() as session:
        return int(
            session.scalar(
                text(size if db.dialect == "sqlite" else "SELECT pg_database_size(current_database())")
            )
            or 0
        )


def _table(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['engine']}, {result['audits']:,} audits, {result['bytes'] / 2**30:.2f} GiB"]
    lines += [
        f"{name}: {one['seconds']:.1f} s in {one['rounds']} rounds, the longest {one['longest_s']:.2f} s"
        for name, one in {**result["known"], "two bundles": result["compared"]}.items()
    ]
    lines.append(f"{'query':<40} {'p50 ms':>8} {'p95 ms':>8} {'cpu ms':>8} {'ratio':>6} {'of cpu':>6}")
    for name, one in result["queries"].items():
        aim = AIMS_MS.get(name.split(":")[0])
        missed = aim is not None and one["p95_ms"] > aim
        missed = missed or min(one.get("ratio", 0.0), one.get("cpu_ratio", 0.0)) > RATIO
        ratio = f"{one['ratio']:6.2f} {one['cpu_ratio']:6.2f}" if "ratio" in one else "     -      -"
        lines.append(
            f"{name:<40} {one['p50_ms']:8.1f} {one['p95_ms']:8.1f} {one['cpu_ms']:8.1f} {ratio}{'  over the aim' if missed else ''}"
        )
    return lines


def main() -> None:
    """Fill a database, ask, print the table."""
    parser = command(__doc__, threads=1)
    parser.add_argument(
        "--audits", type=int, default=100_000, help="audits, ten citations each (default: %(default)s)"
    )
    parser.add_argument(
        "--database-url", help="an empty PostgreSQL database, or a SQLite file (default: a temporary file)"
    )
    parser.add_argument(
        "--filled", action="store_true", help="the database was filled by an earlier run of the same size"
    )
    parser.add_argument(
        "--repeat", type=int, default=20, help="times that each query is timed (default: %(default)s)"
    )
    parser.add_argument("--only", nargs="+", help="only queries whose names contain one of these")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--plans", type=Path, help="write the plans into this folder")
    parser.add_argument("--compare", type=Path, help="figures of a smaller run, for the ratio")
    run(parser, _work, table=_table)


if __name__ == "__main__":
    main()
