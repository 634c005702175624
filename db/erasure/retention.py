"""Retention: rules that erase the texts of a class of outputs some days after they were received. Of several rules the shortest counts.

The sweeper looks through the outputs in the order of their ids, a bounded number in each round; how far a look has come stands in the rule, so a sweeper that was stopped goes on there. Held outputs are passed over, and looked at
again with the next look.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.audit_trail.trail import SERVICE, Event, TrailKind, record_events
from db.clock import db_after, db_now
from db.erasure import holds
from db.erasure.erasing import erase_outputs, read_outputs
from db.erasure.erasures import AT_ONCE, BeforeErasing
from db.models import Erasure, FlaggedOutput, RetentionRule
from db.pages import LARGEST_ID
from db.session import Database
from db.storing.output_class import in_class
from wherefrom.errors import Held, InvalidRequest, NotFound
from wherefrom.records import OutputClass, RetentionDraft, RetentionRecord

#: Outputs of one rule that one round looks at.
LOOKED_AT = 5_000
#: Time between two looks over all outputs, seconds.
EVERY_S = 600.0
#: Rules that hold at once.
MOST_RULES = 100


def add(db: Database, draft: RetentionDraft, *, by: str) -> RetentionRecord:
    """Add a rule.

    Raises:
        InvalidRequest: the name is taken, or there are too many rules.
        DatabaseUnavailable: nothing was added.
    """
    outputs = draft.outputs.model_dump(mode="json", exclude_none=True)
    try:
        with db.writing() as session:
            holding = select(func.count()).where(RetentionRule.ended_at.is_(None))
            if (session.scalar(holding) or 0) >= MOST_RULES:
                raise InvalidRequest(f"there are {MOST_RULES} rules; end one first")
            rule = RetentionRule(name=draft.name, outputs=outputs, days=draft.days, created_by=by)
            session.add(rule)
            session.flush()
            facts = {"days": draft.days, "filters": sorted(outputs)}
            record_events(session, [Event(TrailKind.RETENTION_SET, f"retention_rule:{rule.id}", facts)])
            rule_id = rule.id
    except IntegrityError as error:
        raise InvalidRequest(
            f"a retention rule is named {draft.name!r} already; rules keep their names"
        ) from error
    return get(db, rule_id)


def end(db: Database, rule_id: int) -> RetentionRecord:
    """End a rule; what it erased stays erased.

    Raises:
        NotFound: there is no such rule.
        InvalidRequest: it was ended before.
    """
    get(db, rule_id)
    with db.writing() as session:
        change = (
            update(RetentionRule)
            .where(RetentionRule.id == rule_id, RetentionRule.ended_at.is_(None))
            .values(ended_at=db_now())
        )
        if session.scalar(change.returning(RetentionRule.id)) is None:
            raise InvalidRequest(f"retention rule {rule_id} was ended already")
        record_events(session, [Event(TrailKind.RETENTION_ENDED, f"retention_rule:{rule_id}")])
    return get(db, rule_id)


def get(db: Database, rule_id: int) -> RetentionRecord:
    """One rule.

    Raises:
        NotFound: there is none with this id.
    """
    with db.reading() as session:
        row = session.get(RetentionRule, rule_id) if 0 < rule_id <= LARGEST_ID else None
    if row is None:
        raise NotFound(f"no retention rule has the id {rule_id}")
    return _record(row)


def listed(db: Database, *, ended: bool = False) -> list[RetentionRecord]:
    """The rules, newest first; with `ended` those that were ended too."""
    query = select(RetentionRule).order_by(RetentionRule.id.desc())
    with db.reading() as session:
        rows = session.scalars(query if ended else query.where(RetentionRule.ended_at.is_(None))).all()
    return [_record(one) for one in rows]


def _record(row: RetentionRule) -> RetentionRecord:
    return RetentionRecord(
        rule_id=row.id,
        name=row.name,
        outputs=OutputClass.model_validate(row.outputs),
        days=row.days,
        created_by=row.created_by,
        created_at=row.created_at,
        ended_at=row.ended_at,
        erased=row.erased,
        looked_at=row.looked_at,
    )


@dataclass(frozen=True)
class LastLook:
    """The rule whose outputs were looked through longest ago."""

    name: str
    #: Seconds since then, or since the rule was made.
    seconds: float


def last_look(db: Database) -> LastLook | None:
    """The rule that was applied longest ago; None without rules. A sweeper that runs looks again after `EVERY_S` seconds."""
    since = func.coalesce(
        RetentionRule.looked_at, RetentionRule.created_at, type_=RetentionRule.created_at.type
    )
    query = select(RetentionRule.name, since, db_now()).where(RetentionRule.ended_at.is_(None))
    with db.reading() as session:
        found = session.execute(query.order_by(since).limit(1)).one_or_none()
    if found is None:
        return None
    name, looked_at, now = found
    return LastLook(name, max(0.0, (now - looked_at).total_seconds()))


def step(db: Database, *, before: BeforeErasing) -> int:
    """One round: a bounded look for each rule that is due; how many texts were erased.

    Args:
        db: The database.
        before: Erases copies outside of the database; if it raises, the outputs stay as they are.

    Raises:
        DatabaseUnavailable: what was erased stays erased; the next round goes on.
    """
    due = or_(
        RetentionRule.after_id > 0,
        RetentionRule.looked_at.is_(None),
        RetentionRule.looked_at <= db_after(-EVERY_S),
    )
    with db.reading() as session:
        ids = session.scalars(
            select(RetentionRule.id).where(RetentionRule.ended_at.is_(None), due).order_by(RetentionRule.id)
        ).all()
    return sum(_look(db, rule_id, before) for rule_id in ids)


def _look(db: Database, rule_id: int, before: BeforeErasing) -> int:
    with db.reading() as session:
        found = read_outputs(session, _chosen(session, session.get_one(RetentionRule, rule_id))[1])
    if found:
        before(found)
    ids = [one.output_id for one in found]
    with db.writing() as session:
        rule = session.get_one(RetentionRule, rule_id, with_for_update=True)
        holds.lock_erasing(session)
        looked, chosen = _chosen(session, rule)
        known = [one for one in chosen if one in ids]  # what became due since is left to the next round
        erased = _erase(session, known, by=f"rule:{rule.name}"[:200])
        rule.erased += erased
        _go_on(rule, looked, chosen)
        if erased:
            _note(session, rule, erased)
    return erased


def _note(session: Session, rule: RetentionRule, erased: int) -> None:
    made = Erasure(
        kind="output",
        reason=f"retention rule {rule.name}",
        asked_by=SERVICE,
        rule_id=rule.id,
        erased=erased,
        done_at=db_now(),
    )
    session.add(made)


def _erase(session: Session, chosen: Sequence[int], *, by: str) -> int:
    """Erase all at once; one by one where what was supposed in the place of one of them is held by itself."""
    try:
        with session.begin_nested():
            return erase_outputs(session, chosen, by=by)
    except Held:
        erased = 0
        for one in chosen:
            with suppress(Held), session.begin_nested():
                erased += erase_outputs(session, [one], by=by)
        return erased


def _chosen(session: Session, rule: RetentionRule) -> tuple[Sequence[int], Sequence[int]]:
    """The outputs that this round looks at, and those of them that must go."""
    looked = session.scalars(
        select(FlaggedOutput.id)
        .where(FlaggedOutput.erased_at.is_(None), FlaggedOutput.id > rule.after_id)
        .order_by(FlaggedOutput.id)
        .limit(LOOKED_AT)
    ).all()
    if not looked:
        return looked, looked
    old = FlaggedOutput.received_at <= db_after(-timedelta(days=rule.days).total_seconds())
    due = and_(
        FlaggedOutput.id > rule.after_id,
        FlaggedOutput.id <= looked[-1],
        FlaggedOutput.erased_at.is_(None),
        old,
        *in_class(OutputClass.model_validate(rule.outputs)),
        ~holds.is_held(session),
    )
    chosen = session.scalars(
        select(FlaggedOutput.id).where(due).order_by(FlaggedOutput.id).limit(AT_ONCE)
    ).all()
    return looked, chosen


def _go_on(rule: RetentionRule, looked: Sequence[int], chosen: Sequence[int]) -> None:
    """Where the next round begins: behind the last one that was erased while there may be more, else behind what was looked at."""
    if len(chosen) >= AT_ONCE:
        rule.after_id = chosen[-1]
    elif len(looked) >= LOOKED_AT:
        rule.after_id = looked[-1]
    else:
        rule.after_id, rule.looked_at = 0, db_now()
