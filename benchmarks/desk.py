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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, event, text

from benchmarks import desk_data
from benchmarks.desk_further import further
from benchmarks.desk_queries import COMPARED, TODAY, Query, end_lately, queries
from benchmarks.program import command, report, run
from db.comparison import comparisons
from db.reading import listings
from db.session import Database
from wherefrom.atomic import write_text
from wherefrom.records import AuditFilter

#: Aims of the 95th percentile, milliseconds, by the first word of a query's name.
AIMS_MS = {"list": 100.0, "reverse": 200.0, "search": 500.0}
#: Largest ratio of two runs that is meant to hold.
RATIO = 1.5


def measured(db: Database, ask: Query, *, repeat: int) -> dict[str, float]:
    """Median and 95th percentile of the time, and the mean of the processor time, milliseconds."""
    ask(db)
    took, busy = [], processor_seconds(db)
    for _ in range(repeat):
        began = time.perf_counter()
        ask(db)
        took.append(1000 * (time.perf_counter() - began))
    busy = 1000 * (processor_seconds(db) - busy) / repeat
    return {
        "p50_ms": float(np.percentile(took, 50)),
        "p95_ms": float(np.percentile(took, 95)),
        "cpu_ms": busy,
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
    if not arguments.filled:
        began = time.monotonic()
        desk_data.fill(url, audits=audits, where=folder, further=further(audits))
        report([f"filled in {time.monotonic() - began:.0f} s"])
    db = Database(url)
    result: dict[str, Any] = {"engine": db.dialect, "audits": audits, "bytes": _size(db)}
    result["compared"] = _compare(db)
    while listings.facts(db, AuditFilter(), level=0.1) is None or listings.refresh(db):
        pass
    asked = {name: ask for name, ask in queries(audits).items() if (arguments.only or "") in name}
    smaller = _smaller(arguments.compare)
    result["queries"] = {}
    for name, ask in asked.items():
        if name == TODAY:
            end_lately(db)
        one = result["queries"][name] = measured(db, ask, repeat=arguments.repeat)
        if name in smaller:
            one["ratio"] = one["p50_ms"] / smaller[name]["p50_ms"]
            one["cpu_ratio"] = one["cpu_ms"] / max(smaller[name]["cpu_ms"], 0.1)
        if arguments.out:  # after each, so that what ran is kept whatever happens
            write_text(arguments.out, json.dumps(result, indent=1))
    if arguments.plans:
        arguments.plans.mkdir(parents=True, exist_ok=True)
        write_text(arguments.plans / f"{db.dialect}-{audits}.txt", plans(db, asked))
    db.dispose()
    return result


def _compare(db: Database) -> dict[str, float]:
    """Let the sweeper work two bundles out: seconds, and the longest step, for which its other work waits."""
    comparisons.compare_bundles(db, *COMPARED)
    began, longest, steps = time.monotonic(), 0.0, 0
    while not comparisons.compare_bundles(db, *COMPARED).summary:
        step = time.monotonic()
        comparisons.refresh(db)
        longest, steps = max(longest, time.monotonic() - step), steps + 1
    return {"seconds": time.monotonic() - began, "rounds": steps, "longest_s": longest}


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
    compared = result["compared"]
    lines.append(
        f"two bundles compared in {compared['seconds']:.1f} s, {compared['rounds']} rounds, the longest {compared['longest_s']:.1f} s"
    )
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
    parser.add_argument("--only", help="only queries whose names contain this")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--plans", type=Path, help="write the plans into this folder")
    parser.add_argument("--compare", type=Path, help="figures of a smaller run, for the ratio")
    run(parser, _work, table=_table)


if __name__ == "__main__":
    main()
