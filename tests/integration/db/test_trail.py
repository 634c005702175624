"""The trail: append-only, sealed by one, and a chain in which every change is found."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from db.audit_trail import trail_chain
from db.audit_trail.trail import Event, TrailKind, acting_as, record_events
from db.audit_trail.trail_chain import GENESIS, seal
from db.audit_trail.trail_verify import Fault, Verdict, missing_triggers, verify
from db.models import FlaggedOutput, ItemKey, ServiceLease, TrailEvent
from db.session import Database
from db.statements import insert_new
from db.storing import item_keys
from tests.integration.db.builders import accept, at_once, record, recorded_statements, sha256
from wherefrom.errors import WherefromError
from wherefrom.records import utc_now

EVENTS = 12


def write(db: Database, number: int = 1, *, start: int = 0, actor: str = "person:1") -> None:
    """Append events in one transaction."""
    events = [
        Event(TrailKind.AUDIT_FINISHED, f"audit:{one}", {"state": "done", "score": one / 7, "ü": None})
        for one in range(start, start + number)
    ]
    with acting_as(actor), db.writing() as session:
        record_events(session, events)


def rows(db: Database) -> list[TrailEvent]:
    """All events by their ids."""
    with db.reading() as session:
        return list(session.scalars(select(TrailEvent).order_by(TrailEvent.id)))


def anchors_of(db: Database) -> dict[int, str]:
    """What an anchor would hold now."""
    with db.reading() as session:
        head = trail_chain.head_of(session)
    return {} if head is None else {head.sequence: head.row_hash}


@pytest.fixture
def sealed(db: Database) -> Database:
    """A database with a sealed trail."""
    write(db, EVENTS)
    seal(db, owner="a")
    return db


def test_sealing_gives_places_in_order_and_chains_them(db: Database) -> None:
    """Places count from 1, each event names the digest before it, and what comes later goes on from there."""
    write(db, 3)
    assert seal(db, owner="a").sealed == 3
    write(db, 2, start=3)
    assert seal(db, owner="a").sealed == 2
    assert seal(db, owner="a").sealed == 0
    events = rows(db)
    assert [one.sequence for one in events] == [1, 2, 3, 4, 5]
    assert [one.prev_hash for one in events] == [GENESIS, *(one.row_hash for one in events[:-1])]
    assert {one.actor for one in events} == {"person:1"}
    assert verify(db, anchors=anchors_of(db)).whole


def test_an_idle_sealer_writes_nothing(sealed: Database) -> None:
    """One statement that reads: no lease is renewed on an idle service."""
    with recorded_statements() as statements:
        seal(sealed, owner="a")
    assert len(statements) == 1
    assert statements[0].startswith("SELECT")


def test_large_backlogs_are_sealed_in_transactions_of_a_bounded_size(db: Database) -> None:
    """A first start over an old trail seals it piece by piece."""
    write(db, 7)
    assert [seal(db, owner="a", at_once=3).sealed for _ in range(4)] == [3, 3, 1, 0]
    assert verify(db, anchors={}).events == 7


def test_one_seals_while_another_holds_the_lease(db: Database) -> None:
    """The second sealer does nothing until the first one's lease has run out, then it goes on with the chain."""
    write(db, 2)
    assert seal(db, owner="a").sealed == 2
    write(db, 1, start=2)
    assert seal(db, owner="b").sealed == 0
    with db.writing() as session:
        session.execute(update(ServiceLease).values(until=utc_now() - timedelta(seconds=60)))
    assert seal(db, owner="b").sealed == 1
    assert seal(db, owner="a").sealed == 0
    assert verify(db, anchors={}).whole


def test_sealers_at_once_make_one_chain(db: Database) -> None:
    """Whoever wins, no place is given twice and none is left out."""
    write(db, 40)

    def work(name: str) -> Callable[[], int]:
        return lambda: sum(seal(db, owner=name, at_once=5).sealed for _ in range(8))

    assert sum(at_once([work(name) for name in "abcd"])) == 40
    assert verify(db, anchors={}).events == 40


SEALED = "UPDATE trail_event SET sequence = 99, prev_hash = 'p', row_hash = 'r' WHERE id = {new}"


REFUSED = (
    "UPDATE trail_event SET subject = 'audit:9' WHERE id = {old}",
    "UPDATE trail_event SET payload = '{{}}' WHERE id = {old}",
    "UPDATE trail_event SET actor = NULL WHERE id = {old}",
    "UPDATE trail_event SET sequence = 98 WHERE id = {old}",
    "UPDATE trail_event SET sequence = NULL, prev_hash = NULL, row_hash = NULL WHERE id = {old}",
    "UPDATE trail_event SET sequence = 99 WHERE id = {new}",
    f"{SEALED} AND kind = kind; UPDATE trail_event SET sequence = 100 WHERE id = {{new}}",
    SEALED.replace("sequence = 99", "sequence = 99, kind = 'x'"),
    SEALED.replace("sequence = 99", "sequence = 99, id = 77"),
    "DELETE FROM trail_event WHERE id = {old}",
    "DELETE FROM trail_event WHERE id = {new}",
    "DELETE FROM trail_event",
    "INSERT INTO trail_event (at, kind, subject, payload, sequence, prev_hash, row_hash) SELECT at, kind, subject, payload, 50, 'p', 'r' FROM trail_event WHERE id = {old}",
)


def test_triggers_refuse_every_change(sealed: Database) -> None:
    """No UPDATE but the sealing itself, no DELETE, no event that comes sealed; the rows stay as they are."""
    write(sealed, 1, start=50)
    before = [(one.id, one.subject, one.sequence, one.row_hash) for one in rows(sealed)]
    for statement in REFUSED:
        given = statement.format(old=before[3][0], new=before[-1][0])
        with pytest.raises((SQLAlchemyError, WherefromError)):
            _run(sealed, *given.split(";"))
        assert [(one.id, one.subject, one.sequence, one.row_hash) for one in rows(sealed)] == before, given


def _run(db: Database, *statements: str) -> None:
    with db.writing() as session:
        for one in statements:
            session.execute(text(one))


@pytest.mark.parametrize("column", ["id", "journal_id", "sequence"])
def test_sqlite_replaces_no_event(sqlite_copy: str, column: str) -> None:
    """SQLite deletes what a REPLACE runs into and asks no trigger: it never comes to that."""
    db = Database(sqlite_copy)
    write(db, 2)
    with db.writing() as session:
        session.execute(
            insert(TrailEvent).values(kind="text.read", subject="audits", payload={}, journal_id="one")
        )
    seal(db, owner="a")
    before = [(one.id, one.kind, one.subject, one.sequence) for one in rows(db)]
    value = {"id": before[0][0], "journal_id": "'one'", "sequence": 1}[column]
    with db.writing() as session:
        try:
            session.execute(
                text(
                    f"INSERT OR REPLACE INTO trail_event (at, kind, subject, payload, {column}) VALUES ('2026-01-01', 'x', 'y', '{{}}', {value})"
                )
            )
        except SQLAlchemyError:
            session.rollback()
    write(db, 1, start=9)
    with db.writing() as session:
        try:
            session.execute(
                text(
                    "UPDATE OR REPLACE trail_event SET sequence = 1, prev_hash = 'p', row_hash = 'r' WHERE sequence IS NULL"
                )
            )
        except SQLAlchemyError:
            session.rollback()
    assert [(one.id, one.kind, one.subject, one.sequence) for one in rows(db)][:3] == before
    db.dispose()


@pytest.mark.postgres
def test_postgresql_truncates_no_event(migrated_postgres_url: str) -> None:
    """TRUNCATE asks no row trigger; it has one of its own."""
    db = Database(migrated_postgres_url)
    write(db, 2)
    with pytest.raises((SQLAlchemyError, WherefromError)), db.writing() as session:
        session.execute(text("TRUNCATE trail_event"))
    assert len(rows(db)) == 2
    db.dispose()


def tampered(db: Database, *statements: str) -> Verdict:
    """What a verification finds after somebody with all rights has changed the trail behind the triggers."""
    anchors = anchors_of(db)
    with db.writing() as session:
        if db.dialect == "postgresql":
            session.execute(text("SET LOCAL session_replication_role = replica"))
        dropped = _triggers(db) if db.dialect == "sqlite" else {}
        for name in dropped:
            session.execute(text(f"DROP TRIGGER {name}"))
        for statement in statements:
            session.execute(text(statement))
        for made in dropped.values():
            session.connection().exec_driver_sql(made)
    return verify(db, anchors=anchors)


def _triggers(db: Database) -> dict[str, str]:
    with db.reading() as session:
        found = session.execute(
            text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'trail_event'")
        )
        return {row.name: row.sql for row in found}


COLUMNS = "at, kind, subject, payload, actor"
SWAP = (
    "UPDATE trail_event SET sequence = 1000 WHERE sequence = 4",
    "UPDATE trail_event SET sequence = 4 WHERE sequence = 6",
    "UPDATE trail_event SET sequence = 6 WHERE sequence = 1000",
)


@pytest.mark.parametrize(
    ("statements", "fault", "place"),
    [
        (['UPDATE trail_event SET payload = \'{"state": "dead"}\' WHERE sequence = 5'], Fault.CHANGED, 5),
        (["UPDATE trail_event SET actor = 'person:2' WHERE sequence = 1"], Fault.CHANGED, 1),
        (["UPDATE trail_event SET actor = NULL WHERE sequence = 7"], Fault.CHANGED, 7),
        (["UPDATE trail_event SET at = '2020-01-01 00:00:00.000000' WHERE sequence = 12"], Fault.CHANGED, 12),
        (["UPDATE trail_event SET journal_id = 'x' WHERE sequence = 3"], Fault.CHANGED, 3),
        (["UPDATE trail_event SET id = 500 WHERE sequence = 3"], Fault.CHANGED, 3),
        (["DELETE FROM trail_event WHERE sequence = 5"], Fault.REMOVED, 5),
        (["DELETE FROM trail_event WHERE sequence = 1"], Fault.REMOVED, 1),
        (
            [
                "DELETE FROM trail_event WHERE sequence = 5",
                "UPDATE trail_event SET sequence = -sequence WHERE sequence > 5",
                "UPDATE trail_event SET sequence = -sequence - 1 WHERE sequence < 0",
            ],
            Fault.MOVED,
            5,
        ),
        (SWAP, Fault.MOVED, 4),
        (["DELETE FROM trail_event WHERE sequence > 9"], Fault.CUT, 10),
        (["DELETE FROM trail_event"], Fault.CUT, 1),
        (
            ["UPDATE trail_event SET sequence = NULL, prev_hash = NULL, row_hash = NULL, actor = 'person:3'"],
            Fault.CUT,
            1,
        ),
    ],
)
def test_every_change_is_found_and_the_first_broken_link_is_named(
    sqlite_copy: str, statements: list[str], fault: Fault, place: int
) -> None:
    """Changed, removed, moved or cut off: the verification says which, and where."""
    db = Database(sqlite_copy)
    write(db, EVENTS)
    seal(db, owner="a")
    found = tampered(db, *statements)
    assert (found.fault, found.sequence) == (fault, place)
    assert not found.whole
    db.dispose()


@pytest.mark.postgres
def test_postgresql_is_verified_alike(migrated_postgres_url: str) -> None:
    """One change after the other: each later one breaks an earlier link."""
    db = Database(migrated_postgres_url)
    write(db, EVENTS)
    seal(db, owner="a")
    anchors = anchors_of(db)
    for statement, fault, place in (
        ("DELETE FROM trail_event WHERE sequence > 10", Fault.CUT, 11),
        ("DELETE FROM trail_event WHERE sequence = 8", Fault.REMOVED, 8),
        ('UPDATE trail_event SET payload = \'{"state": "dead"}\' WHERE sequence = 5', Fault.CHANGED, 5),
        ("UPDATE trail_event SET prev_hash = row_hash WHERE sequence = 3", Fault.MOVED, 3),
    ):
        tampered(db, statement)
        found = verify(db, anchors=anchors)
        assert (found.fault, found.sequence) == (fault, place)
    db.dispose()


def test_a_chain_that_was_computed_anew_is_found_by_its_anchor(sealed: Database) -> None:
    """Whoever can write everything can make a chain that is right in itself; it is not the one that was seen."""
    anchors = anchors_of(sealed)
    tampered(
        sealed,
        "UPDATE trail_event SET sequence = NULL, prev_hash = NULL, row_hash = NULL, subject = 'audit:0'",
    )
    with sealed.writing() as session:
        session.execute(update(ServiceLease).values(until=utc_now() - timedelta(seconds=60)))
    assert seal(sealed, owner="thief").sealed == EVENTS
    assert verify(sealed, anchors={}).whole
    found = verify(sealed, anchors=anchors)
    assert (found.fault, found.sequence) == (Fault.REWRITTEN, EVENTS)


def test_a_missing_trigger_is_told(own: Database) -> None:
    """A whole chain over a table that anybody may change is no answer."""
    write(own, 2)
    seal(own, owner="a")
    on_table = "" if own.dialect == "sqlite" else " ON trail_event"
    with own.writing() as session:
        assert missing_triggers(session) == []
        session.execute(text(f"DROP TRIGGER trail_event_no_delete{on_table}"))
    assert verify(own, anchors={}).fault is Fault.UNPROTECTED


def test_the_lag_is_the_age_of_the_oldest_unsealed_event(db: Database) -> None:
    """Nothing waits: 0. An event of a minute ago waits: a minute."""
    assert trail_chain.lag_seconds(db) == 0.0
    with db.writing() as session:
        old = {"kind": "x", "subject": "y", "payload": {}, "at": utc_now() - timedelta(seconds=60)}
        session.execute(insert(TrailEvent), [old])
    assert 59 < trail_chain.lag_seconds(db) < 120
    seal(db, owner="a")
    assert trail_chain.lag_seconds(db) == 0.0


def test_a_line_of_a_journal_is_taken_once(db: Database) -> None:
    """The same lines again change nothing, also after they are sealed."""
    lines = [
        {"kind": "text.read", "subject": "audits", "payload": {"audits": [1]}, "journal_id": f"line-{number}"}
        for number in range(3)
    ]
    for several in (lines[:2], lines, lines):
        with db.writing() as session:
            session.execute(insert_new(session, TrailEvent), several)
        seal(db, owner="a")
    assert [one.journal_id for one in rows(db)] == ["line-0", "line-1", "line-2"]


def test_the_trail_of_an_output_has_a_keyed_digest_and_no_text(db: Database) -> None:
    """The digest proves the content while its key is there, and nothing afterwards; the chain stays whole."""
    given = record(1)
    accept(db, given)
    seal(db, owner="a")
    with db.writing() as session:
        digest = given.content_sha256()
        event = session.scalars(select(TrailEvent).where(TrailEvent.kind == "output.accepted")).one()
        kept = event.payload["content_hmac"]
        assert digest not in str(event.payload)
        assert session.scalars(select(FlaggedOutput.id)).one() == int(event.subject.partition(":")[2])
        assert item_keys.digest_is_of(session, event.subject, kept=kept, digest=digest)
        assert item_keys.digest_is_of(session, event.subject, kept=kept, digest=sha256("other")) is False
        assert item_keys.destroy_keys(session, [event.subject]) == 1
        assert item_keys.digest_is_of(session, event.subject, kept=kept, digest=digest) is None
        assert session.scalars(select(ItemKey)).all() == []
    assert verify(db, anchors={}).whole


def test_an_empty_trail_is_whole(db: Database) -> None:
    """Nothing sealed, no anchors: nothing is wrong, and nothing is claimed."""
    found = verify(db, anchors={})
    assert (found.whole, found.events, found.head) == (True, 0, None)
