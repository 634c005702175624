"""What is told of, and when again: a level that reaches its threshold is told once, and again only when it has doubled or has fallen before.

What was told is taken back by a notice of its own when it falls. Between the threshold and `FALLEN` of it nothing changes, so a level that swings around the threshold is told once. However it moves, one
subject is told at most once in the pause.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.clock import db_now
from db.models import Alert
from db.notices.outbox import announce
from db.session import Database
from db.statements import insert_new
from wherefrom.records import Level, Notice, NoticeKind

#: Below this share of its threshold a level counts as fallen: the next time that it reaches the threshold is news.
FALLEN = 0.8
#: A level that was told is told again when it has grown by this factor.
GROWN = 2


class _Move(Enum):
    """What a look at a level changes."""

    TELL = auto()
    FALL = auto()


@dataclass(frozen=True)
class News:
    """What a look told."""

    raised: Sequence[Level] = ()
    #: What was told before and is not so any more.
    resolved: Sequence[Level] = ()


@dataclass(frozen=True)
class _Known:
    """What was told of a subject."""

    raised: bool = False
    told_value: int | None = None
    told_at: datetime | None = None


def watch(
    db: Database,
    levels: Sequence[Level],
    *,
    kinds: Collection[NoticeKind],
    pause_s: float,
    off: Collection[NoticeKind] = (),
) -> News:
    """Look at the levels and put notices of those that are news on their way; which these were.

    A subject of these kinds that has no level any more has fallen.

    Args:
        db: The database.
        levels: All that reached or may reach a threshold.
        kinds: Of which kinds the levels are all there is.
        pause_s: Seconds for which a subject that was told is not told again.
        off: Kinds that are told no longer: they fall, and nobody hears of it.
    """
    with db.reading() as session:
        known, now = _known(session, kinds)
    gone = [
        Level(notice=Notice(kind=kind, subject=subject), value=0, threshold=1)
        for kind, subject in known.keys() - {_key(one) for one in levels}
    ]
    moved = [
        one
        for one in (*levels, *gone)
        if _move(known.get(_key(one), _Known()), one, now=now, pause_s=pause_s) is not None
    ]
    if not moved:
        return News()
    with db.writing() as session:
        moves = [(one, _change(session, one, pause_s, off)) for one in sorted(moved, key=_key)]
    raised, resolved = ([one for one, move in moves if move is which] for which in (_Move.TELL, _Move.FALL))
    return News(raised, [one for one in resolved if one.notice.kind not in off])


def _key(level: Level) -> tuple[NoticeKind, str]:
    return level.notice.kind, level.notice.subject


def _known(
    session: Session, kinds: Collection[NoticeKind]
) -> tuple[Mapping[tuple[NoticeKind, str], _Known], datetime]:
    """What was told of subjects of these kinds, and the database's clock."""
    rows = session.scalars(select(Alert).where(Alert.kind.in_([one.value for one in kinds]))).all()
    now = session.execute(select(db_now())).scalar_one()
    return {(NoticeKind(row.kind), row.subject): _as_known(row) for row in rows}, now


def _as_known(row: Alert) -> _Known:
    return _Known(row.raised, row.told_value, row.told_at)


def _move(known: _Known, level: Level, *, now: datetime, pause_s: float) -> _Move | None:
    """What a look at the level changes; None: nothing."""
    if not level.is_certain:
        return None
    if level.value < FALLEN * level.threshold:
        return _Move.FALL if known.raised else None
    if known.told_at is not None and 0 <= (now - known.told_at).total_seconds() < pause_s:
        return None
    grown = known.told_value is None or level.value >= GROWN * known.told_value
    return _Move.TELL if level.value >= level.threshold and (grown or not known.raised) else None


def _change(session: Session, level: Level, pause_s: float, off: Collection[NoticeKind]) -> _Move | None:
    """Write a move under the row's lock, where it still is one: two processes that look at once tell it once."""
    kind, subject = _key(level)
    new = {"kind": kind.value, "subject": subject}
    session.execute(insert_new(session, Alert, (Alert.kind, Alert.subject)), [new])
    mine = (Alert.kind == kind.value, Alert.subject == subject)
    row = session.scalars(select(Alert).where(*mine).with_for_update()).one()
    now = session.execute(select(db_now())).scalar_one()
    move = _move(_as_known(row), level, now=now, pause_s=pause_s)
    if move is _Move.TELL:
        row.raised, row.told_value, row.told_at = True, level.value, now
        announce(session, level.notice)
    elif move is _Move.FALL:
        row.raised = False
        if kind not in off:
            announce(session, level.notice.model_copy(update={"kind": kind.resolved}))
    return move
