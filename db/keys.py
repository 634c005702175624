"""API keys: made once, shown once, kept as a hash. Who may do what with a scope is `web`'s business.

A key is ``wf_<prefix>_<secret>`` with 256 random bits in the secret, so a fast hash is enough. The prefix finds the row and may be
shown to people.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from db.clock import db_after, db_now
from db.models import ApiKey
from db.session import Database
from db.statements import AnySelect
from db.trail import Event, TrailKind, record_events
from wherefrom.errors import ConfigurationError, NotFound

#: `last_used_at` is written at most this often, seconds: reading must not cost a write each time.
LAST_USED_STEP_S = 60.0

_MARK = "wf"


class Scope(StrEnum):
    """What a key may do."""

    INGEST = "ingest"
    READ = "read"
    MEASURE = "measure"
    ADMIN = "admin"


@dataclass(frozen=True)
class KeyInfo:
    """What is known about a key; never the key."""

    name: str
    #: The part of the key that may be shown.
    prefix: str
    #: Values of `Scope`.
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    #: When it was last accepted, to within `LAST_USED_STEP_S`.
    last_used_at: datetime | None
    revoked_at: datetime | None


def create_key(db: Database, name: str, scopes: Iterable[str], expires_at: datetime | None = None) -> str:
    """Make a key and return it, this one time.

    Args:
        db: The database.
        name: Who uses it; also the producer of what it sends. Unique for ever, so that a name means one key.
        scopes: What it may do, at least one of ``ingest``, ``read``, ``admin``.
        expires_at: From when it is refused, aware; None for never.

    Raises:
        ConfigurationError: the name is taken or empty, or a scope does not exist.
    """
    try:
        granted = sorted({Scope(one).value for one in scopes})
    except ValueError as error:
        raise ConfigurationError(f"{error}; there are {', '.join(Scope)}") from error
    if not granted or not name:
        raise ConfigurationError("a key needs a name and at least one scope")
    prefix = secrets.token_hex(4)
    key = f"{_MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    row = {
        "name": name,
        "prefix": prefix,
        "key_sha256": _sha256(key),
        "scopes": granted,
        "expires_at": expires_at,
    }
    try:
        with db.writing() as session:
            session.execute(insert(ApiKey), [row])
            record_events(session, [Event(TrailKind.KEY_CREATED, f"api_key:{prefix}", {"scopes": granted})])
    except IntegrityError as error:
        raise ConfigurationError(f"a key named {name!r} exists or existed; take another name") from error
    return key


def check_key(db: Database, key: str) -> KeyInfo | None:
    """Who a key belongs to; None where it is unknown, wrong, expired or revoked. Takes the same time for all of these."""
    mark, _, rest = key.partition("_")
    prefix, _, _ = rest.partition("_")
    expired = ApiKey.expires_at <= db_now()
    rested = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= db_after(-LAST_USED_STEP_S))
    query = _KEYS.add_columns(ApiKey.key_sha256, expired.label("expired"), rested.label("rested"))
    with db.reading() as session:
        row = (
            session.execute(query.where(ApiKey.prefix == prefix)).one_or_none() if prefix.isalnum() else None
        )
    known_sha256 = _sha256("") if row is None else row.key_sha256
    same = hmac.compare_digest(_sha256(key), known_sha256)
    if row is None or not same or mark != _MARK or row.expired or row.revoked_at is not None:
        return None
    if row.rested:
        with db.writing() as session:
            session.execute(update(ApiKey).where(ApiKey.prefix == prefix).values(last_used_at=db_now()))
    return _key_info(row)


def revoke_key(db: Database, name: str) -> None:
    """Refuse a key from now on; a key that is revoked already stays so.

    Raises:
        NotFound: there is no key with this name.
    """
    revoke = (
        update(ApiKey).where(ApiKey.name == name, ApiKey.revoked_at.is_(None)).values(revoked_at=db_now())
    )
    with db.writing() as session:
        prefix = session.scalar(select(ApiKey.prefix).where(ApiKey.name == name))
        if prefix is None:
            raise NotFound(f"there is no key named {name!r}")
        if session.scalar(revoke.returning(ApiKey.id)) is not None:
            record_events(session, [Event(TrailKind.KEY_REVOKED, f"api_key:{prefix}")])


def list_keys(db: Database) -> list[KeyInfo]:
    """All keys, revoked ones too, in the order in which they were made."""
    with db.reading() as session:
        return [_key_info(row) for row in session.execute(_KEYS.order_by(ApiKey.id))]


_KEYS: AnySelect = select(
    ApiKey.name,
    ApiKey.prefix,
    ApiKey.scopes,
    ApiKey.created_at,
    ApiKey.expires_at,
    ApiKey.last_used_at,
    ApiKey.revoked_at,
)


def _key_info(row: Any) -> KeyInfo:
    return KeyInfo(
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
