r"""What the queue costs: processor time of claiming and storing an audit, and how claim, sweep and count grow with what waits.

    python -m benchmarks.queue                                    # 10,000 pending audits on SQLite
    python -m benchmarks.queue --pending 1000000 --compare FILE   # beside the figures of a smaller run: their ratio
    python -m benchmarks.queue --database-url postgresql://...    # an empty database that it may fill

Audits are claimed in batches of `--batch` and stored with ten citations and three opponents each, by this process alone. `cpu_ms` is the processor time of this
process per audit: on SQLite all there is, on PostgreSQL without the server's. A *sweep* is what the sweeper does each round to the queue of audits,
a *count* tells it how many hints are wanted, and *health* is what metrics and pages ask: all states, each counted up to 100,000.
`--out` gets the figures as JSON.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import desk_data
from benchmarks.desk_filling import fill
from benchmarks.program import command, report, run
from db.bundles import routing
from db.queues.audit_queue import AuditQueue, Finished
from db.reading.reader import queue_health
from db.session import Database
from wherefrom.atomic import write_text
from wherefrom.errors import ConfigurationError
from wherefrom.records import Attribution, CitationDraft, Claim, ClaimedAudit, Tier, TrainingExample

#: The bundle that `desk_data` makes and half of its audits wait for.
BUNDLE = 1
LEASE_S = 60.0
#: Largest ratio of the medians of two runs that is meant to hold, and the aim of the processor time, milliseconds.
RATIO, AIM_MS = 2.0, 1.0
CITATIONS, OPPONENTS = 10, 3
_CLAIM, _STORE = "claim", "store"
_CPU = ("cpu_ms", "claim_cpu_ms", "store_cpu_ms")
_WALL = ("claim_ms", "store_ms", "sweep_ms", "count_ms", "health_ms")
#: Rows that the sweeper counts of each bundle, where it serves two processes (`HintSender.enough_rows`).
ENOUGH_ROWS = 2 * 2 * 32
#: Ratios that no goal names: what is stored does not wait for a queue, and the page of health counts up to 100,000 of each state.
_TOLD = ("store_ms", "health_ms")


def answer(audit: ClaimedAudit, *, examples: int) -> Finished:
    """An answer as the engine gives it; audits cite different examples of the corpus."""
    ranks = [*range(1, CITATIONS + 1), *range(-1, -OPPONENTS - 1, -1)]
    drafts = [
        _draft(rank, (audit.audit_id * 31 + place) % examples, score=1 / (place + 3))
        for place, rank in enumerate(ranks)
    ]
    attribution = Attribution(
        key=str(audit.audit_id),
        citations=tuple(drafts),
        tokens=90,
        truncated=False,
        loss_nats=1.3,
        candidates=200,
    )
    return Finished(audit, attribution, 0.01)


def _draft(rank: int, number: int, *, score: float) -> CitationDraft:
    example = TrainingExample(
        example_id=f"ex-{number:07d}",
        row=number,
        source="vendor_batch_00",
        prompt="Question",
        completion="An answer.",
        text_sha256="e" * 64,
    )
    return CitationDraft(
        rank=rank,
        example=example,
        tier=Tier.INFLUENCE,
        score=score,
        retrieval_score=score,
        influence_score=score if rank > 0 else -score,
        influence_magnitude=1.0,
        bm25_score=1.0,
        similarity_score=score,
    )


class Clock:
    """Wall and processor time of pieces of work, by name."""

    def __init__(self) -> None:
        self.wall: dict[str, list[float]] = {}
        self.cpu: dict[str, float] = {}

    def time(self, name: str, work: Callable[[], Any]) -> Any:
        """Do it and note what it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
        return result

    def median_ms(self, name: str) -> float:
        """Median of the wall time, milliseconds."""
        return 1000 * float(np.median(self.wall[name]))


def work_off(queue: AuditQueue, clock: Clock, *, batches: int, batch: int, examples: int) -> int:
    """Claim and store batches; the number of audits."""
    audits = 0
    for number in range(batches + 1):
        noted = clock if number else Clock()  # the first one builds what later ones use again
        claim: Claim | None = noted.time(
            _CLAIM,
            lambda: queue.claim(BUNDLE, owner="benchmark", limit=batch, lease_s=LEASE_S, max_attempts=5),
        )
        if claim is None:
            raise ConfigurationError("nothing is left to claim; ask for more --pending or fewer --batches")
        finished = [answer(one, examples=examples) for one in claim.audits]
        stored = noted.time(_STORE, partial(queue.finish, finished))
        audits += len(stored) if number else 0
    return audits


def sweep(queue: AuditQueue, db: Database) -> None:
    """What the sweeper does to the queue of audits each round."""
    queue.cap_leases(lease_s=LEASE_S)
    queue.release_expired(max_attempts=5)
    routing.move_waiting(db)


def _work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    url = arguments.database_url or f"sqlite:///{folder / 'queue.db'}"
    if not arguments.filled:
        began = time.monotonic()
        fill(url, audits=arguments.pending, where=folder, all_open=True)
        report([f"filled in {time.monotonic() - began:.0f} s"])
    db, clock = Database(url), Clock()
    queue = AuditQueue(db)
    for _ in range(arguments.repeat):
        clock.time("sweep", lambda: sweep(queue, db))
        clock.time("count", partial(queue.pending_counts, at_most=ENOUGH_ROWS))
        clock.time("health", partial(queue_health, db))
    audits = work_off(
        queue,
        clock,
        batches=arguments.batches,
        batch=arguments.batch,
        examples=desk_data.num_examples(arguments.pending),
    )
    db.dispose()
    cpu = {f"{name}_cpu_ms": 1000 * clock.cpu[name] / audits for name in (_CLAIM, _STORE)}
    medians = {f"{name}_ms": clock.median_ms(name) for name in (_CLAIM, _STORE, "sweep", "count", "health")}
    result = {"engine": db.dialect, "pending": arguments.pending, "batch": arguments.batch, "audits": audits}
    result |= {"cpu_ms": sum(cpu.values())} | cpu | medians
    if arguments.compare:
        smaller = json.loads(arguments.compare.read_text(encoding="utf-8"))
        result["ratios"] = {name: medians[name] / smaller[name] for name in medians}
    if arguments.out:
        write_text(arguments.out, json.dumps(result, indent=1))
    return result


def _table(result: dict[str, Any]) -> list[str]:
    ratios = result.get("ratios", {})
    return [
        f"{result['engine']}, {result['pending']:,} pending audits, batches of {result['batch']}",
        *(_line(name, result[name], "per audit", over=result[name] > AIM_MS) for name in _CPU),
        *(
            _line(
                name,
                result[name],
                f"median, ratio {ratios[name]:.2f}" if ratios else "median",
                over=ratios.get(name, 0.0) > RATIO and name not in _TOLD,
            )
            for name in _WALL
        ),
    ]


def _line(name: str, value: float, told: str, *, over: bool) -> str:
    return f"{name:<16} {value:8.3f} {told}{'  over the aim' if over else ''}"


def main() -> None:
    """Fill a database, work, print the table."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--pending", type=int, default=10_000, help="audits that wait (default: %(default)s)")
    parser.add_argument(
        "--database-url", help="an empty PostgreSQL database, or a SQLite file (default: a temporary file)"
    )
    parser.add_argument(
        "--filled", action="store_true", help="the database was filled by an earlier run of the same size"
    )
    parser.add_argument("--batch", type=int, default=32, help="audits of one claim (default: %(default)s)")
    parser.add_argument(
        "--batches", type=int, default=40, help="batches that are timed (default: %(default)s)"
    )
    parser.add_argument(
        "--repeat", type=int, default=20, help="sweeps and counts that are timed (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--compare", type=Path, help="figures of a smaller run, for the ratios")
    run(parser, _work, table=_table)


if __name__ == "__main__":
    main()
