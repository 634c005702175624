"""Producers: keys of one producer share its idempotency keys, and the service's own names are nobody's."""

import time

import pytest
from sqlalchemy import text

from db import migrate
from db.access import key_rotation, keys
from db.access.producers import LOCAL, RESERVED, checked_name, is_reserved
from db.session import Database
from db.storing import intake
from tests.integration.db.builders import record
from tests.waiting import wait_until
from wherefrom.errors import ConfigurationError, NotFound
from worker.flagged_stream.intake import STREAM


def _producer_of(db: Database, key: str) -> str:
    info = keys.check_key(db, key)
    assert info is not None
    return info.producer


def _flag(db: Database, key: str) -> str:
    """Flag the same output with this API key; what intake says."""
    one = record(idempotency_key="order-1")
    return intake.accept(db, [one], producer=_producer_of(db, key), channel="http")[0].status


def test_a_rotated_key_keeps_the_idempotency_keys(db: Database, bundle_id: int) -> None:
    """What the old key sent is a duplicate with the new one; the old one goes on for the grace."""
    old = keys.create_key(db, "production", ["ingest", "read"])
    assert _flag(db, old) == "accepted"
    new = key_rotation.rotate_key(db, "production", grace_s=3600.0)
    assert (new.name, new.producer, new.scopes) == ("production-2", "production", ("ingest", "read"))
    assert [_flag(db, one) for one in (old, new.key)] == ["duplicate", "duplicate"]
    third = key_rotation.rotate_key(db, "production-2", grace_s=0.0, new_name="other")
    assert keys.check_key(db, new.key) is None
    assert _flag(db, third.key) == "duplicate"


def test_a_rotated_key_ends_after_the_grace(db: Database) -> None:
    """The grace never makes a key live longer than it would have."""
    key = keys.create_key(db, "production", ["read"])
    key_rotation.rotate_key(db, "production", grace_s=0.001)
    wait_until(lambda: keys.check_key(db, key) is None)
    with pytest.raises(ConfigurationError, match="--producer production"):
        key_rotation.rotate_key(db, "production", grace_s=0.0)
    with pytest.raises(NotFound):
        key_rotation.rotate_key(db, "nobody", grace_s=0.0)


def test_keys_of_one_producer_share_its_idempotency_keys(db: Database, bundle_id: int) -> None:
    """And those of another one do not."""
    one = keys.create_key(db, "eu", ["ingest"], producer="production")
    two = keys.create_key(db, "us", ["ingest"], producer="production")
    other = keys.create_key(db, "test", ["ingest"])
    assert [_flag(db, key) for key in (one, two, other)] == ["accepted", "duplicate", "accepted"]
    assert [(key.name, key.producer) for key in keys.list_keys(db)] == [
        ("eu", "production"),
        ("us", "production"),
        ("test", "test"),
    ]


REFUSED_NAMES = (
    *sorted(RESERVED), "STREAM", " stream ", "Local", "\uff33\uff34\uff32\uff25\uff21\uff2d", "\u017ftream", "strea\uff4d",
    "cl\u2170", "str\u200beam", "", "   ", "a\nb", "a\x00b", "\x1b[31mred", "n" * 201, " spaced", "a\u202eb", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_NAMES)
def test_reserved_and_invisible_names_are_refused(name: str) -> None:
    """In whatever case and form of letters."""
    with pytest.raises(ConfigurationError):
        checked_name(name, what="a key")


def test_a_reserved_name_is_no_way_in(db: Database) -> None:
    """Neither as a key's name, nor as its producer's, nor by a rotation."""
    for name, producer in (("Stream", None), ("fine", "STREAM"), ("local", "fine")):
        with pytest.raises(ConfigurationError):
            keys.create_key(db, name, ["ingest"], producer=producer)
    keys.create_key(db, "fine", ["ingest"])
    with pytest.raises(ConfigurationError):
        key_rotation.rotate_key(db, "fine", grace_s=0.0, new_name="Cli")
    assert [(one.name, one.revoked_at) for one in keys.list_keys(db)] == [("fine", None)]


def test_names_that_the_service_stores_under_are_reserved() -> None:
    """What the entry points use is on the list."""
    for name in (LOCAL, STREAM, "cli", "http"):
        assert is_reserved(name)


def test_a_producer_has_one_way_of_writing(db: Database) -> None:
    """A slip of case would split its idempotency keys without a word; composed and decomposed letters are the same."""
    keys.create_key(db, "caf\u00e9", ["ingest"])
    with pytest.raises(ConfigurationError, match="already"):
        keys.create_key(db, "two", ["ingest"], producer="Caf\u00e9")
    keys.create_key(db, "three", ["ingest"], producer="cafe\u0301")
    assert {one.producer for one in keys.list_keys(db)} == {"caf\u00e9"}
    keys.revoke_key(db, "cafe\u0301")


def test_keys_of_the_release_before_get_their_producers(own: Database, own_url: str) -> None:
    """Their records stand under the key's name; reserved ones stay too. Keys that the old release makes later are their own producer."""
    migrate.downgrade(own_url, "0004")
    db = own
    rows = "INSERT INTO api_key (name, prefix, key_sha256, scopes, created_at) VALUES (:n, :p, :h, '[\"ingest\"]', :t)"
    values = {"h": "0" * 64, "t": "2026-01-01 00:00:00+00:00"}
    with db.writing() as session:
        for number, name in enumerate(("production", "stream", "Production")):
            session.execute(text(rows), {"n": name, "p": f"p{number}", **values})
    migrate.upgrade(own_url)
    with db.writing() as session:
        session.execute(text(rows), {"n": "late", "p": "p9", **values})
    listed = [(one.name, one.producer) for one in keys.list_keys(db)]
    assert listed == [(name, name) for name in ("production", "stream", "Production", "late")]
    assert key_rotation.rotate_key(db, "late", grace_s=0.0).producer == "late"
    migrate.downgrade(own_url, "0004")
    migrate.upgrade(own_url)
    assert len(keys.list_keys(db)) == 5


def test_a_locked_file_stops_no_reading(sqlite_copy: str) -> None:
    """The use of a key is not noted while somebody else writes, the failure is told, and nobody waits."""
    db, failures = Database(sqlite_copy), []
    key = keys.create_key(db, "reader", ["read"])
    notes = keys.UseNotes(on_failure=lambda: failures.append(1))
    other = Database(sqlite_copy)
    with other.writing() as session:
        session.execute(text("SELECT 1"))
        start = time.monotonic()
        assert all(keys.check_key(db, key, notes) for _ in range(3))
        assert time.monotonic() - start < 2.0
    assert failures == [1]  # once, and then not for a while
    keys.check_key(db, key)
    assert keys.list_keys(db)[0].last_used_at is not None
    other.dispose()
    db.dispose()


#: As a standby answers, which is a server of its own.
_READ_ONLY = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'cannot execute UPDATE in a read-only transaction' USING ERRCODE = '25006'; END $$;
CREATE TRIGGER standby BEFORE UPDATE ON api_key EXECUTE FUNCTION refuse()
"""


@pytest.mark.postgres
def test_a_read_only_or_locked_server_stops_no_reading(migrated_postgres_url: str) -> None:
    """A standby after a failover, and a table that somebody holds."""
    db, failures = Database(migrated_postgres_url), []
    key = keys.create_key(db, "reader", ["read"])
    other = Database(migrated_postgres_url)
    with other.writing() as session:
        session.execute(text("LOCK TABLE api_key IN SHARE MODE"))
        start = time.monotonic()
        assert keys.check_key(db, key, keys.UseNotes(on_failure=lambda: failures.append(1)))
        assert time.monotonic() - start < 2.0
        session.execute(text(_READ_ONLY))
    assert keys.check_key(db, key, keys.UseNotes(on_failure=lambda: failures.append(1)))
    assert failures == [1, 1]
    other.dispose()
    db.dispose()
