"""A key takes another one's place, and both are taken for a while: nobody has to change a key everywhere in one moment."""

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.access.budgets import quotas_of
from db.access.keys import KeyOwner, KeyTerms, insert_key, key_named, retire
from db.access.producers import checked_name, ensure_producer
from db.models import ApiKey
from db.session import Database
from db.sight import limits_of
from wherefrom.errors import ConfigurationError


@dataclass(frozen=True)
class RotatedKey:
    """The key that takes another one's place."""

    name: str
    producer: str
    scopes: tuple[str, ...]
    #: Shown this one time.
    key: str


def rotate_key(
    db: Database,
    name: str,
    *,
    grace_s: float,
    new_name: str | None = None,
    expires_at: datetime | None = None,
) -> RotatedKey:
    """Make a new key of the same producer with the same scopes; the old one goes on for a while.

    Args:
        db: The database.
        name: The key to be replaced.
        grace_s: How long the old key is still taken, seconds; 0 revokes it at once.
        new_name: Name of the new key; by default the old one's with the next free number.
        expires_at: From when the new key is refused, aware; None for never.

    Raises:
        NotFound: there is no key with this name.
        ConfigurationError: the key is revoked or expired, or the new name cannot be used.
    """
    try:
        with db.writing() as session:
            old = key_named(session, name)
            ended = old.expired or old.revoked_at is not None
            if ended:
                raise ConfigurationError(
                    f"the key {old.name!r} is revoked or expired; make a new one: keys create NAME --producer {old.producer}"
                )
            wanted = checked_name(new_name or _next_name(session, old.name), what="a key")
            key = insert_key(
                session,
                wanted,
                KeyOwner(ensure_producer(session, old.producer), old.person_id),
                KeyTerms(list(old.scopes), expires_at, limits_of(old.limits), quotas_of(old.quotas)),
            )
            retire(session, old, grace_s=grace_s)
    except IntegrityError as error:
        raise ConfigurationError(f"a key named {new_name!r} is or was in use; choose another name") from error
    return RotatedKey(wanted, old.producer, tuple(old.scopes), key)


def _next_name(session: Session, name: str) -> str:
    """The name with the next free number behind it: `production`, `production-2`, `production-3`."""
    taken = set(session.scalars(select(ApiKey.name)))
    found = re.fullmatch(r"(?P<stem>.+)-(?P<number>[1-9][0-9]{0,5})", name)
    stem, number = (found["stem"], int(found["number"])) if found else (name, 1)
    while f"{stem}-{number + 1}" in taken:
        number += 1
    return f"{stem}-{number + 1}"
