"""What the trail costs: events sealed and verified per second, and pages with their reads noted against pages without.

    python -m benchmarks.trail                               # 1,000,000 events on SQLite
    python -m benchmarks.trail --events 100000 --database-url postgresql://...   # an empty database that it may fill

The events are like those of a service: half of them end audits, the rest are reads of texts with fifty ids. Pages are asked for over HTTP by `--readers` at once, an audit and the list in turn, of one web process; the kinds
of `WHEREFROM_TRAIL_READS` take turns, and each has its median.
"""

import argparse
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from benchmarks.program import command, report, run
from db import migrate
from db.audit_trail import trail_chain
from db.audit_trail.trail import Event, TrailKind, record_events
from db.audit_trail.trail_verify import verify
from db.session import Database
from db.storing import intake
from scripts.web_thread import serving
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.errors import ConfigurationError
from wherefrom.metrics import Metrics
from wherefrom.records import FlaggedRecord
from wherefrom.settings import Settings

#: Events of one inserting transaction.
_AT_ONCE = 5_000
#: Outputs that pages show.
OUTPUTS = 200
MODES = ("off", "best_effort", "required")


def fill(db: Database, events: int) -> float:
    """Append events; seconds."""
    started = time.monotonic()
    for start in range(0, events, _AT_ONCE):
        with db.writing() as session:
            record_events(session, [_event(number) for number in range(start, min(events, start + _AT_ONCE))])
    return time.monotonic() - started


def _event(number: int) -> Event:
    if number % 2:
        payload: dict[str, Any] = {
            "state": "done", "attempt": 1, "citations": 13, "citations_sha256": f"{number:064x}"
        }  # fmt: skip
        return Event(TrailKind.AUDIT_FINISHED, f"audit:{number}", payload)
    ids = list(range(number, number + 50))
    return Event(TrailKind.TEXT_READ, "audits", {"route": "/v1/audits", "audits": ids, "via": "key"})


def seal_all(db: Database) -> tuple[float, float]:
    """Seal what there is; seconds, and seconds of the longest transaction, during which SQLite takes no other writer."""
    longest = 0.0
    started = time.monotonic()
    while True:
        begun = time.monotonic()
        done = trail_chain.seal(db, owner="benchmark")
        longest = max(longest, time.monotonic() - begun)
        if not done.sealed:
            return time.monotonic() - started, longest


def ask(url: str, *, readers: int, pages: int) -> tuple[float, float]:
    """Ask for pages; milliseconds of the median page, and pages a second."""

    def reader(number: int) -> list[float]:
        took = []
        with httpx.Client(base_url=url, timeout=60) as client:
            for page in range(pages):
                path = "/v1/audits" if page % 2 else f"/v1/audits/{1 + (number * pages + page) % OUTPUTS}"
                begun = time.monotonic()
                client.get(path).raise_for_status()
                took.append(time.monotonic() - begun)
        return took

    started = time.monotonic()
    with ThreadPoolExecutor(readers) as pool:
        took = [one for some in pool.map(reader, range(readers)) for one in some]
    return statistics.median(took) * 1000, len(took) / (time.monotonic() - started)


def reads(settings: Settings, db: Database, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Pages by kind of note, in rounds that take turns."""
    records = [
        FlaggedRecord(prompt=f"Question {n}?", completion=f"Answer {n}.", model="m") for n in range(OUTPUTS)
    ]
    intake.accept(db, records, producer="local", channel="http")
    found: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for _ in range(arguments.rounds):
        for mode in MODES:
            chosen = settings.model_copy(update={"trail_reads": mode})
            app = create_app(chosen, db, metrics=Metrics(), queue=SilentProbe())
            with serving(app) as url:
                ask(url, readers=1, pages=4)
                found[mode].append(ask(url, readers=arguments.readers, pages=arguments.pages))
    return {
        mode: {
            "median_ms": statistics.median(one for one, _ in rounds),
            "pages_per_s": statistics.median(one for _, one in rounds),
        }
        for mode, rounds in found.items()
    }


def work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fill, seal, verify, and ask for pages."""
    url = arguments.database_url or f"sqlite:///{folder / 'trail.db'}"
    migrate.upgrade(url)
    db = Database(url)
    if trail_chain.count_events(db) != (0, 0):
        raise ConfigurationError("the database has a trail already; name an empty one")
    result: dict[str, Any] = {"engine": db.dialect, "events": arguments.events}
    result["filled_s"] = fill(db, arguments.events)
    result["sealed_s"], result["longest_seal_s"] = seal_all(db)
    report([f"sealed after {result['sealed_s']:.1f} s"])
    started = time.monotonic()
    found = verify(db, anchors={})
    result["verified_s"], result["whole"] = time.monotonic() - started, found.whole
    # With the limits of requests out of the way: this is about the cost of a note.
    settings = Settings.model_validate(
        {"database_url": url, "state_dir": folder / "state", "max_waiting_requests": 1000}
    )
    result["reads"] = reads(settings, db, arguments)
    db.dispose()
    return result


def table(result: dict[str, Any]) -> list[str]:
    """The figures as lines."""
    lines = [
        (
            f"{result['events']:,} events on {result['engine']}: written in {result['filled_s']:.1f} s, sealed in {result['sealed_s']:.1f} s "
            f"(longest transaction {1000 * result['longest_seal_s']:.0f} ms), verified in {result['verified_s']:.1f} s"
        ),
        f"the chain is {'whole' if result['whole'] else 'BROKEN'}",
    ]
    return lines + [
        f"reads {mode:12} {one['median_ms']:8.1f} ms a page {one['pages_per_s']:8.1f} pages a second"
        for mode, one in result["reads"].items()
    ]


def main() -> None:
    """Entry point."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--events", type=int, default=1_000_000, help="events (default: %(default)s)")
    parser.add_argument("--readers", type=int, default=8, help="readers at once (default: %(default)s)")
    parser.add_argument("--pages", type=int, default=100, help="pages of each (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds of each kind of note (default: %(default)s)"
    )
    parser.add_argument(
        "--database-url", help="an empty database that is filled (default: SQLite in a temporary folder)"
    )
    run(parser, work, table=table)


if __name__ == "__main__":
    main()
