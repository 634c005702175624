"""What was accepted, and what became of it: the books of a storm. Nothing here talks to a service, so that the counting can be tried alone.

accepted    acknowledged to a producer by HTTP, by the command line or by the client's spool, or stored from the stream
lost        accepted, and not answered, abstained, rejected or dead when all was quiet again
stream_lost acknowledged by Redis, and destroyed there before intake had read it
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from sqlalchemy import select

from db.audit_trail.trail import TrailKind
from db.models import Audit, Citation, FlaggedOutput, TrailEvent, TrainingExample
from db.session import Database
from wherefrom.records import AuditState, sha256_of_json

ANSWERED = {AuditState.DONE, AuditState.ABSTAINED}
#: Rank, training example, score: what the trail's digest is over.
Cited = tuple[int, str, float]
#: Where a stream entry was destroyed when Redis was killed under this setting of `appendfsync`.
ALWAYS, EVERYSEC, NO_AOF, FLUSHALL = "always", "everysec", "no AOF", "FLUSHALL"
#: Nothing that destroys entries came after this one.
NO_CAUSE = "no known cause"


@dataclass(frozen=True)
class Row:
    """An audit as the database holds it in the end."""

    key: str
    state: AuditState
    attempt: int
    cited: tuple[Cited, ...] = ()
    #: Payloads of the trail's events that it was answered.
    answers: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Tally:
    """What came of a storm."""

    accepted: int
    done: int
    abstained: int
    dead: int
    lost: int
    duplicate_citations: int
    half_written: int
    stream_lost: int
    #: Dead or rejected, without a fault of their own.
    innocents_dead: int
    #: Answers of a worker that no longer held the audit.
    stale_answers: int
    #: `stream_lost` by what destroyed the entries.
    stream_lost_by: Mapping[str, int] = field(default_factory=dict)


def judge(
    acknowledged: Collection[str],
    streamed: Mapping[str, str],
    rows: Sequence[Row],
    *,
    poisons: Collection[str],
) -> Tally:
    """Count.

    Args:
        acknowledged: Keys that a producer was told are stored, by other ways than the stream.
        streamed: Keys that Redis acknowledged, with what destroyed the entry if it is not stored.
        rows: All audits.
        poisons: Keys of outputs that kill their process: these may be dead.
    """
    by_key: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_key[row.key].append(row)
    accepted = set(acknowledged) | by_key.keys()
    ended = {key for key, found in by_key.items() if all(not row.state.is_open for row in found)}
    states = Counter(row.state for row in rows)
    destroyed = Counter(cause for key, cause in streamed.items() if key not in by_key)
    return Tally(
        accepted=len(accepted),
        done=states[AuditState.DONE],
        abstained=states[AuditState.ABSTAINED],
        dead=states[AuditState.DEAD],
        lost=len(accepted - ended),
        duplicate_citations=sum(map(_duplicates, by_key.values())),
        half_written=sum(not _is_whole(row) for row in rows),
        stream_lost=destroyed.total(),
        innocents_dead=sum(
            row.state in {AuditState.DEAD, AuditState.REJECTED} and row.key not in poisons for row in rows
        ),
        stale_answers=sum(answer["attempt"] != row.attempt for row in rows for answer in row.answers),
        stream_lost_by=dict(destroyed),
    )


def _duplicates(found: Sequence[Row]) -> int:
    """Citations that an output has twice: of a second audit, of a second answer, or by rank or example of one answer."""
    again = sum(len(row.cited) for row in found[1:])
    for row in found:
        again += sum(max(0, int(answer["citations"])) for answer in row.answers[1:])
        again += len(row.cited) - min(len({one[0] for one in row.cited}), len({one[1] for one in row.cited}))
    return again


def _is_whole(row: Row) -> bool:
    """Answered with all that the trail says was cited, or not answered and without a citation."""
    if row.state not in ANSWERED:
        return not row.cited
    cited = [list(one) for one in sorted(row.cited, key=lambda one: (one[0] < 0, abs(one[0])))]
    return bool(row.answers) and row.answers[-1]["citations_sha256"] == sha256_of_json(cited)


@dataclass(frozen=True)
class Limits:
    """Seconds: the longest that were seen, or the most that they may be."""

    #: Until an audit of a killed or paused worker was claimed again.
    reclaim_s: float
    #: Until an output that was sent after a fault was answered.
    canary_s: float
    #: The same after FLUSHALL.
    flushall_s: float


def broken(tally: Tally, seen: Limits, most: Limits) -> list[str]:
    """The invariants that do not hold, each in one sentence."""
    nothing = ("lost", "duplicate_citations", "half_written", "innocents_dead", "stale_answers")
    found = [f"{name} is {number}, and must be 0" for name in nothing if (number := getattr(tally, name))]
    if number := tally.stream_lost_by.get(ALWAYS, 0):
        found.append(f"stream_lost under appendfsync always is {number}, and must be 0")
    if number := tally.stream_lost_by.get(NO_CAUSE, 0):
        found.append(f"{number} entries of the stream are gone, and nothing destroyed them")
    told = {
        "reclaim_s": "an audit was claimed again",
        "canary_s": "a canary was answered",
        "flushall_s": "the canary after FLUSHALL was answered",
    }
    for name, text in told.items():
        took, limit = getattr(seen, name), getattr(most, name)
        if took > limit:
            found.append(f"{text} after {took:.1f} s, later than {limit:g} s")
    return found


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Median and worst; None where there is nothing."""
    if not seconds:
        return {"median": None, "worst": None}
    return {"median": round(float(np.median(seconds)), 2), "worst": round(max(seconds), 2)}


def counts(tally: Tally) -> dict[str, int]:
    """The numbers by name."""
    return {one.name: getattr(tally, one.name) for one in fields(tally) if one.name != "stream_lost_by"}


def read_rows(db: Database) -> list[Row]:
    """All audits with their citations and the trail's word on them."""
    with db.reading() as session:
        cited: dict[int, list[Cited]] = defaultdict(list)
        for number, rank, example, score in session.execute(
            select(
                Citation.audit_id,
                Citation.rank,
                TrainingExample.example_id,
                Citation.score,
            ).join(TrainingExample, TrainingExample.id == Citation.training_example_id)
        ):
            cited[number].append((rank, example, score))
        answers: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        told = select(TrailEvent.subject, TrailEvent.payload).order_by(TrailEvent.id)
        for subject, payload in session.execute(
            told.where(TrailEvent.kind == TrailKind.AUDIT_FINISHED.value)
        ):
            answers[subject].append(payload)
        found = session.execute(
            select(Audit.id, FlaggedOutput.idempotency_key, Audit.state, Audit.attempt).join(
                FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id
            )
        )
        return [
            Row(key, state, attempt, tuple(cited[number]), tuple(answers[f"audit:{number}"]))
            for number, key, state, attempt in found
        ]
