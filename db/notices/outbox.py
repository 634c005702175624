"""Notices on their way to the webhook: written in the transaction of what they tell of, sent later, told until somebody has them.

Delivery is at least once: a notice keeps its id and its bytes through all tries, so a receiver knows a repeated one. A try is a claim: it
counts, and it puts the next one so far off that the sender is done by then. Whoever died in it leaves the notice to the next try.
`wherefrom.records.notices` says what there is to tell; whoever has a new kind to tell calls `announce`.
"""

import json
import secrets
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Update, delete, insert, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_after, db_now
from db.counts import count_at_most
from db.models import WebhookDelivery
from db.session import Database
from db.statements import materialized
from db.storing.examples import storable_text
from wherefrom.errors import ATTEMPTS_EXHAUSTED, PermanentError, WherefromError
from wherefrom.records import (
    MAX_NOTICE_BYTES,
    Delivery,
    DeliveryState,
    Notice,
    Outgoing,
    notice_body,
)

#: How long what ended is listed.
KEPT = timedelta(days=30)
#: Most notices that a count of a state tells apart.
COUNTED = 1000

_PENDING = WebhookDelivery.state == DeliveryState.PENDING


def announce(session: Session, notice: Notice, *, wait_s: float = 0.0) -> int:
    """Put a notice on its way, in the caller's transaction; its number.

    Args:
        session: The caller's transaction.
        notice: What to tell.
        wait_s: Seconds until it is due.

    Raises:
        ValueError: the body is larger than `MAX_NOTICE_BYTES`.
    """
    now = session.execute(select(db_now())).scalar_one()
    body = json.dumps(notice_body(notice, at=now), separators=(",", ":"))
    if len(body) > MAX_NOTICE_BYTES:
        raise ValueError(f"a notice of {len(body)} bytes; at most {MAX_NOTICE_BYTES} can be told")
    row = {
        "event_id": f"evt_{secrets.token_hex(16)}",
        "kind": notice.kind.value,
        "subject": notice.subject,
        "body": body,
        "state": DeliveryState.PENDING,
        "next_attempt_at": db_after(wait_s),
    }
    number: int = session.execute(
        insert(WebhookDelivery).values(**row).returning(WebhookDelivery.id)
    ).scalar_one()
    _record(session, TrailKind.NOTICE_RAISED, number, {"kind": notice.kind.value, "event": row["event_id"]})
    return number


def claim(db: Database, *, lease_s: float, delivery_id: int | None = None) -> Outgoing | None:
    """Begin a try of the oldest notice that is due; None where there is none.

    Args:
        db: The database.
        lease_s: After so many seconds the notice is due again, unless the try ended before.
        delivery_id: Of this notice alone, due or not.
    """
    which = WebhookDelivery.next_attempt_at <= db_now()
    if delivery_id is not None:
        which = WebhookDelivery.id == delivery_id
    due = (
        select(WebhookDelivery.id)
        .where(_PENDING, which)
        .order_by(WebhookDelivery.next_attempt_at, WebhookDelivery.id)
        .limit(1)
    )
    picked = materialized(due.with_for_update(skip_locked=True), "picked")
    take = (
        update(WebhookDelivery)
        .where(WebhookDelivery.id == picked.c.id)
        .values(attempt=WebhookDelivery.attempt + 1, next_attempt_at=db_after(lease_s))
        .returning(
            WebhookDelivery.id, WebhookDelivery.event_id, WebhookDelivery.body, WebhookDelivery.attempt
        )
    )
    with db.writing() as session:
        row = session.execute(take.execution_options(synchronize_session=False)).one_or_none()
    if row is None:
        return None
    return Outgoing(delivery_id=row.id, event_id=row.event_id, body=row.body, attempt=row.attempt)


def delivered(db: Database, outgoing: Outgoing) -> bool:
    """End a try that reached the receiver; False where a later try has begun in the meantime."""
    ended = {"state": DeliveryState.DELIVERED, "code": None, "reason": None} | _ENDED
    with db.writing() as session:
        if not _mine(session, outgoing, ended):
            return False
        _record(session, TrailKind.NOTICE_DELIVERED, outgoing.delivery_id, {"attempt": outgoing.attempt})
        return True


def failed(
    db: Database, outgoing: Outgoing, error: WherefromError, *, wait_s: float, max_attempts: int
) -> DeliveryState | None:
    """End a try that failed: the notice waits, or it is dead; None where a later try has begun in the meantime.

    Args:
        db: The database.
        outgoing: What was tried.
        error: Why it failed; no further try helps against a permanent one.
        wait_s: Seconds until the next try.
        max_attempts: Tries after which a notice is dead.
    """
    told: dict[str, Any] = {"code": error.code, "reason": storable_text(str(error))}
    spent = outgoing.attempt >= max_attempts
    if not (spent or isinstance(error, PermanentError)):
        with db.writing() as session:
            waits = _mine(session, outgoing, told | {"next_attempt_at": db_after(wait_s)})
        return DeliveryState.PENDING if waits else None
    if spent and not isinstance(error, PermanentError):
        last = f"{outgoing.attempt} tries failed, the last with {error.code}: {error}"
        told = {"code": ATTEMPTS_EXHAUSTED, "reason": storable_text(last)}
    with db.writing() as session:
        if not _mine(session, outgoing, told | {"state": DeliveryState.DEAD} | _ENDED):
            return None
        payload = {"code": told["code"], "attempt": outgoing.attempt}
        _record(session, TrailKind.NOTICE_DEAD, outgoing.delivery_id, payload)
    return DeliveryState.DEAD


def retry_dead(db: Database, delivery_ids: Iterable[int] = ()) -> int:
    """Send dead notices again, with all their tries; how many. Without ids: all."""
    wanted = [WebhookDelivery.state == DeliveryState.DEAD]
    if ids := sorted(set(delivery_ids)):
        wanted.append(WebhookDelivery.id.in_(ids))
    values = {"state": DeliveryState.PENDING, "attempt": 0, "next_attempt_at": db_now(), "finished_at": None}
    again = update(WebhookDelivery).where(*wanted).values(**values).returning(WebhookDelivery.id)
    with db.writing() as session:
        changed = session.scalars(again.execution_options(synchronize_session=False)).all()
        record_events(session, [_event(TrailKind.NOTICE_REQUEUED, number, {}) for number in changed])
    return len(changed)


def list_deliveries(
    db: Database, *, state: DeliveryState | None = None, delivery_id: int | None = None, limit: int = 50
) -> list[Delivery]:
    """The newest notices, with what became of them; in one state, or one alone."""
    columns = [getattr(WebhookDelivery, name) for name in Delivery.model_fields if name != "delivery_id"]
    query = select(WebhookDelivery.id.label("delivery_id"), *columns).order_by(WebhookDelivery.id.desc())
    if state is not None:
        query = query.where(_in(state))
    if delivery_id is not None:
        query = query.where(WebhookDelivery.id == delivery_id)
    with db.reading() as session:
        return [Delivery(**row) for row in session.execute(query.limit(limit)).mappings()]


def counts(db: Database) -> dict[DeliveryState, int]:
    """Notices that wait and that are dead, up to `COUNTED` each."""
    states = (DeliveryState.PENDING, DeliveryState.DEAD)
    query = select(*(count_at_most(COUNTED, _in(state)).label(state.value) for state in states))
    with db.reading() as session:
        row = session.execute(query).one()
    return dict(zip(states, row, strict=True))


def forget_old(db: Database) -> int:
    """Delete what ended long ago; how many. The trail keeps that it was told."""
    old = delete(WebhookDelivery).where(WebhookDelivery.finished_at < db_after(-KEPT.total_seconds()))
    with db.writing() as session:
        return len(session.scalars(old.returning(WebhookDelivery.id)).all())


_ENDED: dict[str, Any] = {"finished_at": db_now(), "next_attempt_at": None}


def _in(state: DeliveryState) -> ColumnElement[bool]:
    return WebhookDelivery.state == state


def _mine(session: Session, outgoing: Outgoing, values: dict[str, Any]) -> bool:
    """Write what a try came to, unless a later one has begun: the number of the try is its fence."""
    mine = (WebhookDelivery.id == outgoing.delivery_id, WebhookDelivery.attempt == outgoing.attempt, _PENDING)
    change: Update = update(WebhookDelivery).where(*mine).values(**values)
    done = session.execute(change.returning(WebhookDelivery.id).execution_options(synchronize_session=False))
    return done.first() is not None


def _record(session: Session, kind: TrailKind, number: int, payload: dict[str, Any]) -> None:
    record_events(session, [_event(kind, number, payload)])


def _event(kind: TrailKind, number: int, payload: dict[str, Any]) -> Event:
    return Event(kind, f"webhook_delivery:{number}", payload)
