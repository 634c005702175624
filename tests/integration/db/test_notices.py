"""Notices on both engines: told once for each thing that is news, kept until somebody has them, fenced by the number of the try."""

import json

import pytest
from sqlalchemy import func, select, update

from db.clock import db_after
from db.models import Alert, TrailEvent, WebhookDelivery
from db.notices import alerts, outbox
from db.session import Database
from tests.integration.db.builders import at_once
from wherefrom.errors import ATTEMPTS_EXHAUSTED, WebhookFailed, WebhookGone
from wherefrom.records import (
    MAX_NOTICE_BYTES,
    Delivery,
    DeliveryState,
    Level,
    Notice,
    NoticeKind,
    Outgoing,
)

DEAD, BLAMED = NoticeKind.AUDITS_DEAD, NoticeKind.SOURCE_BLAMED
HOUR_S = 3600.0


def announce(db: Database, **fields: object) -> int:
    """A notice that is due."""
    with db.writing() as session:
        return outbox.announce(session, Notice.model_validate({"kind": DEAD, **fields}))


def claimed(db: Database) -> Outgoing:
    """The notice that is due first."""
    found = outbox.claim(db, lease_s=60)
    assert found is not None
    return found


def only(db: Database) -> Delivery:
    """The only notice."""
    (found,) = outbox.list_deliveries(db)
    return found


def make_due(db: Database) -> None:
    """Let the next try of every notice be due."""
    with db.writing() as session:
        session.execute(
            update(WebhookDelivery).values(next_attempt_at=db_after(-1)),
            execution_options={"synchronize_session": False},
        )


def kinds(db: Database) -> list[str]:
    """What the trail has of notices."""
    with db.reading() as session:
        return list(
            session.scalars(
                select(TrailEvent.kind).where(TrailEvent.kind.startswith("notice.")).order_by(TrailEvent.id)
            )
        )


def test_a_notice_is_told_with_its_transaction_or_not_at_all(db: Database) -> None:
    """What is rolled back was never on its way."""
    with db.writing() as session:
        outbox.announce(session, Notice(kind=DEAD))
        session.rollback()
    assert outbox.claim(db, lease_s=60) is None
    assert kinds(db) == []


def test_every_try_has_the_same_id_and_bytes(db: Database) -> None:
    """A receiver can tell a repeated try; the fields are those of Standard Webhooks."""
    announce(db, kind=BLAMED, subject="vendor\u202e7", data={"first_citations": 20})
    first = claimed(db)
    assert outbox.claim(db, lease_s=60) is None, "the try is under way"
    state = outbox.failed(db, first, WebhookFailed("answered 500"), wait_s=30, max_attempts=5)
    assert state is DeliveryState.PENDING
    assert outbox.claim(db, lease_s=60) is None, "it waits"
    make_due(db)
    second = claimed(db)
    assert (second.event_id, second.body) == (first.event_id, first.body)
    assert (first.attempt, second.attempt) == (1, 2)
    told = json.loads(first.body)
    assert told["type"] == "source.blamed"
    assert told["data"] == {"subject": "vendor\u202e7", "first_citations": 20}
    assert first.body.isascii()
    assert told["timestamp"].endswith("+00:00")


def test_delivered_once(db: Database) -> None:
    """The end is written once and never claimed again."""
    announce(db)
    outgoing = claimed(db)
    assert outbox.delivered(db, outgoing)
    assert not outbox.delivered(db, outgoing)
    make_due(db)
    assert outbox.claim(db, lease_s=60) is None
    assert only(db).state is DeliveryState.DELIVERED
    assert kinds(db) == ["notice.raised", "notice.delivered"]


def test_a_try_that_took_too_long_ends_nothing(db: Database) -> None:
    """The number of the try is its fence: what a later try finds stands."""
    announce(db)
    slow = claimed(db)
    make_due(db)
    late = claimed(db)
    assert outbox.failed(db, slow, WebhookGone("410"), wait_s=1, max_attempts=5) is None
    assert not outbox.delivered(db, slow)
    assert outbox.delivered(db, late)


def test_dead_after_its_tries_and_sent_again_by_hand(db: Database) -> None:
    """The reason keeps the last failure; by hand it gets all its tries again, with the same id."""
    announce(db)
    event_id = only(db).event_id
    for _ in range(2):
        outbox.failed(db, claimed(db), WebhookFailed("answered 500"), wait_s=30, max_attempts=2)
        make_due(db)
    dead = only(db)
    assert (dead.state, dead.code, dead.attempt) == (DeliveryState.DEAD, ATTEMPTS_EXHAUSTED, 2)
    assert "answered 500" in (dead.reason or "")
    assert outbox.counts(db) == {DeliveryState.PENDING: 0, DeliveryState.DEAD: 1}
    assert outbox.claim(db, lease_s=60) is None
    assert outbox.retry_dead(db, [dead.delivery_id + 1]) == 0
    assert outbox.retry_dead(db) == 1
    again = claimed(db)
    assert (again.event_id, again.attempt) == (event_id, 1)
    assert kinds(db) == ["notice.raised", "notice.dead", "notice.requeued"]


def test_processes_that_died_in_every_try(db: Database) -> None:
    """Tries that nobody ended count too, so a notice that kills its sender ends."""
    announce(db)
    for _ in range(3):
        outgoing = claimed(db)
        make_due(db)
    assert outbox.failed(db, outgoing, WebhookFailed("x"), wait_s=1, max_attempts=3) is DeliveryState.DEAD


def test_a_receiver_that_wants_no_more(db: Database) -> None:
    """No further try is made."""
    announce(db)
    assert outbox.failed(db, claimed(db), WebhookGone("410"), wait_s=1, max_attempts=9) is DeliveryState.DEAD
    assert only(db).code == "webhook_gone"


def test_two_claim_two(db: Database) -> None:
    """Senders at once never get the same notice."""
    for _ in range(4):
        announce(db)
    found = at_once([lambda: outbox.claim(db, lease_s=60)] * 4)
    assert len({one.delivery_id for one in found if one}) == 4


def test_a_body_has_a_bound(db: Database) -> None:
    """What is too large is refused before it is stored."""
    with pytest.raises(ValueError, match="bytes"):
        announce(db, data={"x": "y" * MAX_NOTICE_BYTES})
    assert outbox.list_deliveries(db) == []


def test_old_ends_are_forgotten(db: Database) -> None:
    """What waits is kept, however old."""
    for _ in range(2):
        announce(db)
    outbox.delivered(db, claimed(db))
    assert outbox.forget_old(db) == 0
    with db.writing() as session:
        long_ago = db_after(-2 * outbox.KEPT.total_seconds())
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.finished_at.is_not(None))
            .values(finished_at=long_ago),
            execution_options={"synchronize_session": False},
        )
    assert outbox.forget_old(db) == 1
    assert only(db).state is DeliveryState.PENDING


def dead_audits(value: int, *, threshold: int = 10, subject: str = "", is_certain: bool = True) -> Level:
    """A level of dead audits."""
    notice = Notice(kind=DEAD, subject=subject, data={"dead": value})
    return Level(notice=notice, value=value, threshold=threshold, is_certain=is_certain)


def look(db: Database, *levels: Level, pause_s: float = 0.0) -> int:
    """How many notices a look raised."""
    return len(alerts.watch(db, levels, kinds=(DEAD,), pause_s=pause_s).raised)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((9, 9), [0, 0]),
        ((10, 11, 10, 12), [1, 0, 0, 0]),
        ((10, 9, 10, 8, 10), [1, 0, 0, 0, 0]),
        ((10, 7, 10), [1, 0, 1]),
        ((10, 19, 20, 39, 40), [1, 0, 1, 0, 1]),
        ((0, 10, 0, 0, 10), [0, 1, 0, 0, 1]),
    ],
    ids=["below", "stays", "swings", "falls and comes back", "doubles", "from nothing"],
)
def test_what_is_news(db: Database, values: tuple[int, ...], told: list[int]) -> None:
    """Reached: once. Around the threshold: nothing. Fallen and reached again, or doubled: again."""
    assert [look(db, dead_audits(value)) for value in values] == told


def test_a_pause_between_two(db: Database) -> None:
    """However it moves, a subject is told once in the pause; what was not told in it is told after it."""
    assert look(db, dead_audits(10), pause_s=HOUR_S) == 1
    assert [look(db, dead_audits(value), pause_s=HOUR_S) for value in (0, 10, 100)] == [0, 0, 0]
    with db.writing() as session:
        session.execute(update(Alert).values(told_at=db_after(-HOUR_S - 1)))
    assert look(db, dead_audits(100), pause_s=HOUR_S) == 1


def test_subjects_are_apart_and_one_without_a_level_has_fallen(db: Database) -> None:
    """A source that nobody cites any more is news when it comes back."""
    assert look(db, dead_audits(10, subject="a"), dead_audits(10, subject="b")) == 2
    assert look(db, dead_audits(10, subject="a")) == 0
    assert look(db, dead_audits(10, subject="a"), dead_audits(10, subject="b")) == 1


def test_what_was_told_is_taken_back_once(db: Database) -> None:
    """A notice of its own says that it has fallen or is gone, with its numbers; what was never told is not taken back, nor what is told no longer."""
    look(db, dead_audits(10, subject="a"), dead_audits(10, subject="b"), dead_audits(3, subject="c"))
    for _ in range(2):
        look(db, dead_audits(7, subject="a"), pause_s=HOUR_S)
    bodies = [json.loads(one) for one in bodies_of(db, DEAD.resolved)]
    assert [one["data"] for one in bodies] == [{"subject": "a", "dead": 7}, {"subject": "b"}]
    assert {one["type"] for one in bodies} == {"audits.dead.resolved"}
    look(db, dead_audits(10, subject="a"))
    news = alerts.watch(db, (), kinds=(DEAD,), pause_s=0.0, off={DEAD})
    assert not news.resolved
    assert len(bodies_of(db, DEAD.resolved)) == 2
    assert look(db, dead_audits(10, subject="a")) == 1, "it fell in silence"


def bodies_of(db: Database, kind: NoticeKind) -> list[str]:
    """What was told of a kind, in order."""
    with db.reading() as session:
        wanted = select(WebhookDelivery.body).where(WebhookDelivery.kind == kind.value)
        return list(session.scalars(wanted.order_by(WebhookDelivery.id)))


def test_what_is_not_certain_changes_nothing(db: Database) -> None:
    """It neither reaches the threshold nor falls."""
    assert look(db, dead_audits(50, is_certain=False)) == 0
    assert look(db, dead_audits(10)) == 1
    assert look(db, dead_audits(0, is_certain=False)) == 0
    assert look(db, dead_audits(10)) == 0


def test_processes_that_look_at_once_tell_once(db: Database) -> None:
    """The first time, and again when the subject is known and has fallen: the row's lock decides."""
    assert sum(at_once([lambda: look(db, dead_audits(10))] * 4)) == 1
    assert look(db, dead_audits(0)) == 0
    assert sum(at_once([lambda: look(db, dead_audits(10))] * 8)) == 1
    with db.reading() as session:
        told = select(WebhookDelivery.kind, func.count()).group_by(WebhookDelivery.kind)
        counts = dict(session.execute(told).all())
        assert counts == {"audits.dead": 2, "audits.dead.resolved": 1}
