"""API keys: shown once, checked against a hash, expired and revoked by the database's clock."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from db.access import key_rotation, keys, people
from db.models import ApiKey
from db.session import Database
from tests.integration.db.builders import recorded_statements
from wherefrom.errors import ConfigurationError, Forbidden, InvalidRequest, NotFound


def test_a_key_is_accepted_and_only_its_hash_is_stored(db: Database) -> None:
    """The key's form, what is known about it, and that the table does not hold it."""
    key = keys.create_key(db, "producer", ["read", "ingest", "read"])
    mark, prefix, secret = key.split("_", 2)
    assert (mark, len(prefix)) == ("wf", 8)
    assert len(secret) >= 43
    info = keys.check_key(db, key)
    assert info is not None
    assert (info.name, info.prefix, info.scopes) == ("producer", prefix, ("ingest", "read"))
    with db.reading() as session:
        row = session.scalars(select(ApiKey)).one()
        assert secret not in " ".join(str(value) for value in vars(row).values())


@pytest.mark.parametrize("spoil", [lambda key: key[:-1], lambda key: key + "x", lambda key: "xx" + key[2:]])
def test_a_wrong_key_is_refused(db: Database, spoil) -> None:
    """The right prefix with anything else wrong."""
    assert keys.check_key(db, spoil(keys.create_key(db, "producer", ["read"]))) is None


@pytest.mark.parametrize(
    "key", ["", "wf", "wf_", "wf__", "wf_00000000_x", "wf_\x00_x", "wf_\ud800_x", "ключ"]
)
def test_nonsense_is_refused(db: Database, key: str) -> None:
    """Whatever a header may hold."""
    assert keys.check_key(db, key) is None


def test_expired_and_revoked_keys_are_refused(db: Database) -> None:
    """From their time on; revoking twice is fine."""
    past, future = (datetime.now(UTC) + timedelta(hours=hours) for hours in (-1, 1))
    assert keys.check_key(db, keys.create_key(db, "old", ["read"], past)) is None
    key = keys.create_key(db, "new", ["read"], future)
    assert keys.check_key(db, key) is not None
    keys.revoke_key(db, "new")
    keys.revoke_key(db, "new")
    assert keys.check_key(db, key) is None
    assert [(one.name, one.revoked_at is not None) for one in keys.list_keys(db)] == [
        ("old", False),
        ("new", True),
    ]


def test_last_use_is_noted_but_not_every_time(db: Database) -> None:
    """The first check writes, the next one only reads."""
    key = keys.create_key(db, "producer", ["read"])
    assert keys.list_keys(db)[0].last_used_at is None
    keys.check_key(db, key)
    assert keys.list_keys(db)[0].last_used_at is not None
    with recorded_statements() as statements:
        keys.check_key(db, key)
    assert len(statements) == 1


@pytest.mark.parametrize(
    ("name", "scopes"), [("a", ["root"]), ("a", []), ("", ["read"]), ("taken", ["read"])]
)
def test_unusable_keys_are_not_made(db: Database, name: str, scopes: list[str]) -> None:
    """Unknown scope, no scope, no name, a name that is or was taken."""
    keys.create_key(db, "taken", ["read"])
    keys.revoke_key(db, "taken")
    with pytest.raises(ConfigurationError):
        keys.create_key(db, name, scopes)
    assert len(keys.list_keys(db)) == 1


def test_revoking_nobody_is_not_found(db: Database) -> None:
    """The text names who was meant."""
    with pytest.raises(NotFound, match="'nobody'"):
        keys.revoke_key(db, "nobody")


def test_a_key_that_may_review_has_a_person_behind_it(db: Database) -> None:
    """Of the key's name where nobody is named; a key of a program has nobody."""
    made = {
        "ann": keys.create_key(db, "ann", ["review"]),
        "laptop": keys.create_key(db, "laptop", ["read"], person="ann"),
        "shipper": keys.create_key(db, "shipper", ["ingest"]),
    }
    found = {name: keys.check_key(db, key) for name, key in made.items()}
    assert {name: one.person for name, one in found.items() if one} == {
        "ann": "ann",
        "laptop": "ann",
        "shipper": None,
    }
    assert [(one.name, one.keys) for one in people.list_people(db)] == [("ann", 2)]


def test_a_rotated_key_keeps_its_person(db: Database) -> None:
    """Whoever judged with the old key judges with the new one."""
    keys.create_key(db, "ann", ["review"])
    info = keys.check_key(db, key_rotation.rotate_key(db, "ann", grace_s=0).key)
    assert info is not None
    assert (info.person, info.scopes) == ("ann", ("review",))


def test_a_chosen_name_is_one_that_no_key_proves(db: Database) -> None:
    """On a machine without keys anybody may take any other name; twins of a name are refused."""
    keys.create_key(db, "ann", ["review"])
    assert people.choose_local(db, "ben") == people.choose_local(db, "ben")
    with pytest.raises(Forbidden, match="a key was made for 'ann'"):
        people.choose_local(db, "ann")
    for name in ("Ben", "", "local", "a\u202eb"):
        with pytest.raises(InvalidRequest):
            people.choose_local(db, name)


@pytest.mark.parametrize("revoked", [False, True])
def test_a_session_lives_as_long_as_its_key(db: Database, *, revoked: bool) -> None:
    """The key's prefix finds it until it is revoked."""
    prefix = keys.create_key(db, "ann", ["review"]).split("_")[1]
    if revoked:
        keys.revoke_key(db, "ann")
    assert (keys.key_of_session(db, prefix) is None) is revoked
