"""What happens now, for the page that operators and auditors open first. Every count has a bound, so it costs the same with a million audits."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.bundles import catalogue
from db.clock import db_after, db_now
from db.counts import COUNTED_WORK, count_at_most
from db.models import Audit, Finding, ProcessSign
from db.queues.audit_queue import AuditQueue
from db.reading import reader, stuck, visits
from db.reading.said import of_what_was_said
from db.reading.selection import ANSWERED
from db.session import Database
from db.signs import FORGOTTEN_S, SILENT_S
from wherefrom.records import (
    AuditState,
    BundleInfo,
    Minute,
    News,
    Today,
    Waiting,
    WorkerSign,
)
from wherefrom.records.today import MINUTES

#: Audits that ended last and are looked at for the throughput, and processes that are shown.
ENDED, SHOWN = 20_000, 200


def today(db: Database, *, person_id: int | None = None) -> Today:
    """How the work goes; seven statements, and two more for somebody whose last visit is known.

    Args:
        db: The database.
        person_id: Whose news to tell; None for nobody.
    """
    queue = reader.queue_health(db, most=COUNTED_WORK)
    bundles = {one.id: one for one in catalogue.list_bundles(db)}
    pending = AuditQueue(db).pending_counts()
    with db.reading() as session:
        now, minutes, partial = _minutes(session)
        workers = _workers(session, bundles)
        audits, work = stuck.stuck(session)
    since = None if person_id is None else visits.last_visit(db, person_id)
    return Today(
        now=now,
        queue=queue,
        minutes=minutes,
        partial=partial,
        workers=workers,
        waiting=_waiting(pending, bundles, workers),
        stuck=audits,
        stuck_work=work,
        news=None if since is None else _news(db, since),
    )


class _minute_of(FunctionElement[str]):  # noqa: N801 - it is used like a SQL function
    """The minute of a time, as ``2026-01-31 08:00`` in UTC."""

    inherit_cache = True


@compiles(_minute_of, "sqlite")
def _minute_sqlite(element: _minute_of, compiler: SQLCompiler, **kwargs: Any) -> str:
    return f"substr({compiler.process(element.clauses, **kwargs)}, 1, 16)"


@compiles(_minute_of, "postgresql")
def _minute_postgresql(element: _minute_of, compiler: SQLCompiler, **kwargs: Any) -> str:
    column = compiler.process(element.clauses, **kwargs)
    return f"to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')"


def _minutes(session: Session) -> tuple[datetime, tuple[Minute, ...], bool]:
    """The database's time, what ended in each minute of the last hour, and whether some of it was not looked at."""
    ended = (
        select(Audit.finished_at, Audit.state)
        .where(Audit.finished_at >= db_after(-60.0 * MINUTES), of_what_was_said(Audit.id))
        .order_by(Audit.finished_at.desc())
        .limit(ENDED)
        .subquery("ended")
    )
    minute = _minute_of(ended.c.finished_at).label("minute")
    rows = session.execute(
        select(minute, ended.c.state, func.count().label("number"), db_now().label("now")).group_by(
            "minute", ended.c.state
        )
    ).all()
    now: datetime = rows[0].now if rows else session.execute(select(db_now())).scalar_one()
    found = {(row.minute, row.state): row.number for row in rows}
    last = now.replace(second=0, microsecond=0)
    starts = [last - timedelta(minutes=before) for before in range(MINUTES - 1, -1, -1)]
    minutes = tuple(
        Minute(
            start=start,
            **{
                state.value: found.get((f"{start:%Y-%m-%d %H:%M}", state), 0)
                for state in AuditState
                if not state.is_open
            },
        )
        for start in starts
    )
    return now, minutes, sum(found.values()) >= ENDED


def _workers(session: Session, bundles: dict[int, BundleInfo]) -> tuple[WorkerSign, ...]:
    alive = (ProcessSign.seen_at > db_after(-SILENT_S)).label("alive")
    query = (
        select(ProcessSign, alive)
        .where(ProcessSign.seen_at > db_after(-FORGOTTEN_S))
        .order_by(ProcessSign.role, ProcessSign.host, ProcessSign.started_at)
        .limit(SHOWN)
    )
    found = []
    for sign, is_alive in session.execute(query):
        loaded = [bundles[number] for number in sign.bundles if number in bundles]
        found.append(
            WorkerSign(
                name=sign.name,
                role=sign.role,
                host=sign.host,
                pid=sign.pid,
                bundles=tuple(one.name for one in loaded),
                models=tuple(dict.fromkeys(one.model for one in loaded)),
                started_at=sign.started_at,
                seen_at=sign.seen_at,
                alive=bool(is_alive),
            )
        )
    return tuple(found)


def _waiting(
    pending: dict[int, int], bundles: dict[int, BundleInfo], workers: Sequence[WorkerSign]
) -> tuple[Waiting, ...]:
    loaded = [name for one in workers if one.alive and one.role == "attribute" for name in one.bundles]
    return tuple(
        Waiting(
            bundle=bundles[number].name,
            model=bundles[number].model,
            audits=audits,
            workers=loaded.count(bundles[number].name),
        )
        for number, audits in sorted(pending.items())
        if number in bundles
    )


def _news(db: Database, since: datetime) -> News:
    said = of_what_was_said(Audit.id)
    counts: Iterable[Any] = (
        count_at_most(COUNTED_WORK, Audit.created_at > since, said),
        count_at_most(COUNTED_WORK, Audit.finished_at > since, Audit.state.in_(ANSWERED), said),
        count_at_most(COUNTED_WORK, Finding.created_at > since, Finding.merged_into.is_(None)),
    )
    with db.reading() as session:
        received, answered, findings = session.execute(select(*counts)).one()
    return News(since=since, received=received, answered=answered, findings=findings)
