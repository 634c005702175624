"""What the pages of the desk cost in a large database: p50 and p95 of each page's query, and the plans that they run by.

    python -m benchmarks.desk                                    # 100,000 audits on SQLite
    python -m benchmarks.desk --audits 1000000 --compare FILE    # beside the figures of a smaller run: their ratio
    python -m benchmarks.desk --database-url postgresql://...    # an empty database that it may fill

A query is what a page asks the database for, with the records that it makes of the answer, in this process; rendering is left out. Each is asked
once to warm up, then `--repeat` times. `--out` gets the figures as JSON, `--plans` a file per engine with the plan of every statement.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Engine, event, text

from benchmarks import desk_data
from benchmarks.program import command, report, run
from db import listings, reader, suggestions, support
from db.session import Database
from wherefrom.atomic import write_text
from wherefrom.records import AuditFilter, AuditOrder, AuditState, Judged, Severity, Supported

Query = Callable[[Database], object]

#: Aims of the 95th percentile, milliseconds, by the first word of a query's name.
AIMS_MS = {"list": 100.0, "reverse": 200.0, "search": 500.0}
#: Largest ratio of the medians of two runs that is meant to hold.
RATIO = 1.5


def _list(*, order: AuditOrder = AuditOrder.NEWEST, **filters: Any) -> Query:
    wanted = AuditFilter.model_validate(filters)

    def ask(db: Database) -> object:
        limit = listings.support_limit(db, wanted)
        return reader.list_audits(db, wanted, order=order, limit=50, supported=limit)

    return ask


def _deep(*, order: AuditOrder = AuditOrder.NEWEST, **filters: Any) -> Query:
    """The page in the middle, by a cursor that is made from the row there."""

    def ask(db: Database) -> object:
        return reader.list_audits(
            db, AuditFilter.model_validate(filters), order=order, cursor=_cursor(db, order), limit=50
        )

    return ask


_cursors: dict[tuple[str, AuditOrder], str | None] = {}


def _cursor(db: Database, order: AuditOrder) -> str | None:
    """The cursor of a page far inside; found once, before anything is timed."""
    key = (db.url_masked, order)
    if key not in _cursors:
        cursor = None
        for _ in range(20):
            cursor = reader.list_audits(db, AuditFilter(), order=order, cursor=cursor, limit=500).next_cursor
        _cursors[key] = cursor
    return _cursors[key]


def _example(db: Database, example_id: str) -> int:
    return reader.find_example(db, example_id)[0].training_example_id


def queries(audits: int) -> dict[str, Query]:
    """What is measured, by name."""
    since = desk_data._START + timedelta(seconds=60 * (audits - 1_440))  # noqa: SLF001 - one benchmark in two files
    rarely, often = "ex-0000001", "ex-0000003"
    return {
        "list: newest": _list(),
        "list: page 201": _deep(),
        "list: oldest first": _list(order=AuditOrder.OLDEST),
        "list: most severe first": _list(order=AuditOrder.SEVERITY),
        "list: highest score first": _list(order=AuditOrder.SCORE),
        "list: best supported first": _list(order=AuditOrder.SUPPORT),
        "list: answered last, page 201": _deep(order=AuditOrder.ANSWERED),
        "list: one day": _list(since=since),
        "list: dead": _list(state=AuditState.DEAD),
        "list: a frequent reason": _list(flag_reason="refund_promise"),
        "list: a rare reason": _list(flag_reason=desk_data.RARE_REASON),
        "list: an unknown reason": _list(flag_reason="nobody"),
        "list: one of two models": _list(model="support-2"),
        "list: critical": _list(severity=Severity.CRITICAL),
        "list: cites a frequent source": _list(source="vendor_batch_00"),
        "list: cites a rare source": _list(source=desk_data.RARE_SOURCE),
        "list: first citation from a source": _list(top_source="vendor_batch_07"),
        "list: in a queue": _list(in_queue="refunds"),
        "list: confirmed": _list(verdict=Judged.CONFIRMED),
        "list: nobody judged": _list(verdict=Judged.NONE),
        "list: confidence from .99": _list(confidence_min=0.99),
        "list: score from .5 to .6": _list(score_min=0.5, score_max=0.6),
        "list: effect from .05 nats": _list(effect_min=0.05),
        "list: supported": _list(support=Supported.SUPPORTED),
        "list: six filters": _list(
            state=AuditState.DONE,
            flag_reason="tone",
            severity=Severity.HIGH,
            source="vendor_batch_01",
            model="support-1",
            score_min=0.2,
        ),
        "search: no hit": _list(text="nobodysaysthis"),
        "search: few hits": _list(text=desk_data.RARE_WORD),
        "search: few hits in cited texts": _list(in_cited=desk_data.RARE_CITED_WORD),
        "search: many hits": _list(text=desk_data.FREQUENT_WORD),
        "search: many hits, page 201": _deep(text=desk_data.FREQUENT_WORD),
        "search: two words": _list(text="refund word7"),
        "search: beginning of a word": _list(in_output="word12"),
        "reverse: an example rarely cited": lambda db: reader.cited_by(db, _example(db, rarely)),
        "reverse: an example often cited": lambda db: reader.cited_by(db, _example(db, often)),
        "reverse: as a filter": _list(example=often),
        "page: one audit": lambda db: reader.get_audit(db, audits // 2),
        "page: the strip of states": reader.queue_health,
        "page: suggestions": suggestions.suggest,
        "page: count of all": lambda db: listings.facts(db, AuditFilter(), wait=False),
        "page: count of a reason": lambda db: listings.facts(db, AuditFilter(flag_reason="tone"), wait=False),
        "page: support of all": lambda db: listings.facts(db, AuditFilter(), level=0.1, wait=False),
        "job: support of all": lambda db: support.judge(db, AuditFilter(), 0.1),
    }


def measured(db: Database, ask: Query, *, repeat: int) -> dict[str, float]:
    """Median and 95th percentile, milliseconds."""
    ask(db)
    took = []
    for _ in range(repeat):
        began = time.perf_counter()
        ask(db)
        took.append(1000 * (time.perf_counter() - began))
    return {"p50_ms": float(np.percentile(took, 50)), "p95_ms": float(np.percentile(took, 95))}


@contextmanager
def _noted() -> Iterator[list[tuple[str, Any]]]:
    """The statements that run meanwhile, with their parameters."""
    noted: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "WITH")):
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
        with _noted() as noted:
            ask(db)
        lines.append(f"## {name}: {len(noted)} statements")
        for statement, parameters in noted:
            with db.reading() as session:
                found = session.connection().exec_driver_sql(explain + statement, parameters)
                lines += [f"  {row[-1]}" for row in found]
            lines.append("")
    return "\n".join(lines)


def _work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    url = arguments.database_url or f"sqlite:///{folder / 'desk.db'}"
    if not arguments.filled:
        began = time.monotonic()
        desk_data.fill(url, audits=arguments.audits, where=folder)
        report([f"filled in {time.monotonic() - began:.0f} s"])
    db = Database(url)
    while listings.facts(db, AuditFilter(), level=0.1) is None or listings.refresh(db):
        pass
    asked = queries(arguments.audits)
    if arguments.only:
        asked = {name: ask for name, ask in asked.items() if arguments.only in name}
    found = {name: measured(db, ask, repeat=arguments.repeat) for name, ask in asked.items()}
    with db.reading() as session:
        size = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        on_disk = session.scalar(
            text(size if db.dialect == "sqlite" else "SELECT pg_database_size(current_database())")
        )
    result = {"engine": db.dialect, "audits": arguments.audits, "bytes": on_disk, "queries": found}
    if arguments.plans:
        write_text(arguments.plans / f"{db.dialect}-{arguments.audits}.txt", plans(db, asked))
    if arguments.compare:
        smaller = json.loads(arguments.compare.read_text(encoding="utf-8"))["queries"]
        for name, one in found.items():
            if name in smaller:
                one["ratio"] = one["p50_ms"] / smaller[name]["p50_ms"]
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1))
    db.dispose()
    return result


def _table(result: dict[str, Any]) -> list[str]:
    lines = [f"{result['engine']}, {result['audits']:,} audits, {result['bytes'] / 2**30:.2f} GiB"]
    lines.append(f"{'query':<38} {'p50 ms':>8} {'p95 ms':>8} {'ratio':>6}")
    for name, one in result["queries"].items():
        aim = AIMS_MS.get(name.split(":")[0])
        missed = aim is not None and one["p95_ms"] > aim
        ratio = f"{one['ratio']:6.2f}" if "ratio" in one else "     -"
        lines.append(
            f"{name:<38} {one['p50_ms']:8.1f} {one['p95_ms']:8.1f} {ratio}{'  over the aim' if missed else ''}"
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
