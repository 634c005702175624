"""API keys: made once, shown once, kept as a hash. Who may do what with a scope is `web`'s business.

A key is ``wf_<prefix>_<secret>`` with 256 random bits in the secret, so a fast hash is enough. The prefix finds the row and may be
shown to people. A key belongs to a producer (`db.producers`), which keeps its idempotency keys when its API keys change. A person may
stand behind it (`db.people`); only such a key judges.
"""

import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import false, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from db.clock import db_after, db_now
from db.models import ApiKey, Person, Producer
from db.people import ensure_person
from db.producers import checked_name, ensure_producer
from db.session import Database
from db.statements import AnySelect
from db.trail import Event, TrailKind, record_events
from wherefrom.errors import ConfigurationError, NotFound, WherefromError

#: `last_used_at` is written, or tried to be written, at most this often, seconds: reading must not cost a write each time.
LAST_USED_STEP_S = 60.0

_MARK = "wf"


class Scope(StrEnum):
    """What a key, and a session that began with it, may do."""

    #: Flag outputs.
    INGEST = "ingest"
    #: See every audit, training example, source and bundle.
    READ = "read"
    #: Judge; without `read` only what stands in one's own queues and assignments.
    REVIEW = "review"
    #: Have effects measured, which costs trainings.
    MEASURE = "measure"
    #: Scrape `/metrics` and nothing else; `read` may too.
    METRICS = "metrics"
    #: All of it.
    ADMIN = "admin"


#: What people are called by what they may do; each is a set of scopes and nothing else.
ROLES = {
    "reviewer": (Scope.REVIEW,),
    "auditor": (Scope.READ, Scope.REVIEW, Scope.MEASURE),
    "admin": (Scope.ADMIN,),
}


@dataclass(frozen=True)
class KeyInfo:
    """What is known about a key; never the key."""

    name: str
    #: Whose it is: the name that its records are stored under.
    producer: str
    #: The part of the key that may be shown.
    prefix: str
    #: Values of `Scope`.
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    #: When it was last accepted, to within `LAST_USED_STEP_S`.
    last_used_at: datetime | None
    revoked_at: datetime | None
    #: Who stands behind it; None for a key of a program.
    person: str | None = None
    person_id: int | None = None
    #: Sessions of the person that began before it are refused.
    sessions_from: datetime | None = None

    def ends_session(self, began_at: datetime) -> bool:
        """Whether the person signed out after a session began."""
        return self.sessions_from is not None and began_at <= self.sessions_from


class UseNotes:
    """Notes when keys were last used, as well as can be: a database that cannot be written now stops no reading.

    One per process; safe to share between threads.

    Args:
        on_failure: Called for every note that could not be written.
    """

    def __init__(self, on_failure: Callable[[], None] = lambda: None) -> None:
        self._on_failure = on_failure
        self._failed_at: dict[str, float] = {}

    def note(self, db: Database, prefix: str) -> None:
        """Write that the key was used now, without waiting for anybody; after a failure not again for a while."""
        if time.monotonic() < self._failed_at.get(prefix, float("-inf")) + LAST_USED_STEP_S:
            return
        try:
            with db.writing_at_once() as session:
                session.execute(update(ApiKey).where(ApiKey.prefix == prefix).values(last_used_at=db_now()))
        except (SQLAlchemyError, WherefromError):  # locked, read-only, away: whoever asks only wants to read
            self._failed_at[prefix] = time.monotonic()
            self._on_failure()
        else:
            self._failed_at.pop(prefix, None)


def create_key(
    db: Database,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    *,
    producer: str | None = None,
    person: str | None = None,
) -> str:
    """Make a key and return it, this one time.

    Args:
        db: The database.
        name: What the key is called. Unique for ever, so that a name means one key.
        scopes: What it may do, at least one value of `Scope`.
        expires_at: From when it is refused, aware; None for never.
        producer: Whose it is; made where it is missing. None: a producer of the key's name.
        person: Who stands behind it; made where they are missing. None: a person of the key's name where the key may review, else nobody.

    Raises:
        ConfigurationError: a name is taken, reserved or empty, or a scope does not exist.
    """
    try:
        granted = sorted({Scope(one).value for one in scopes})
    except ValueError as error:
        raise ConfigurationError(f"{error}; the scopes are {', '.join(Scope)}") from error
    if not granted:
        raise ConfigurationError("a key needs at least one scope")
    wanted = checked_name(name, what="a key")
    behind = person or (wanted if Scope.REVIEW in granted else None)
    try:
        with db.writing() as session:
            owner = _Owner(
                ensure_producer(session, producer or wanted),
                None if behind is None else ensure_person(session, behind),
            )
            return _insert_key(session, wanted, owner, scopes=granted, expires_at=expires_at)
    except IntegrityError as error:
        raise ConfigurationError(f"a key named {name!r} is or was in use; choose another name") from error


@dataclass(frozen=True)
class _Owner:
    """Whose a key is: under whose name records are stored, and who judges with it."""

    producer_id: int
    person_id: int | None


def _insert_key(
    session: Session, name: str, owner: _Owner, *, scopes: list[str], expires_at: datetime | None
) -> str:
    prefix = secrets.token_hex(4)
    key = f"{_MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    row = {
        "name": name,
        "producer_id": owner.producer_id,
        "person_id": owner.person_id,
        "prefix": prefix,
        "key_sha256": _sha256(key),
        "scopes": scopes,
        "expires_at": expires_at,
    }
    session.execute(insert(ApiKey), [row])
    record_events(session, [Event(TrailKind.KEY_CREATED, f"api_key:{prefix}", {"scopes": scopes})])
    return key


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
            old = _key_named(session, name)
            ended = old.expired or old.revoked_at is not None
            if ended:
                raise ConfigurationError(
                    f"the key {old.name!r} is revoked or expired; make a new one: keys create NAME --producer {old.producer}"
                )
            wanted = checked_name(new_name or _next_name(session, old.name), what="a key")
            key = _insert_key(
                session,
                wanted,
                _Owner(ensure_producer(session, old.producer), old.person_id),
                scopes=list(old.scopes),
                expires_at=expires_at,
            )
            _retire(session, old, grace_s=grace_s)
    except IntegrityError as error:
        raise ConfigurationError(f"a key named {new_name!r} is or was in use; choose another name") from error
    return RotatedKey(wanted, old.producer, tuple(old.scopes), key)


def _retire(session: Session, old: Any, *, grace_s: float) -> None:
    """Let a key end after the grace, or where it ends anyway before that."""
    mine = update(ApiKey).where(ApiKey.prefix == old.prefix)
    if grace_s <= 0:
        session.execute(mine.values(revoked_at=db_now()))
        record_events(session, [Event(TrailKind.KEY_REVOKED, f"api_key:{old.prefix}")])
        return
    later = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_after(grace_s))
    session.execute(mine.where(later).values(expires_at=db_after(grace_s)))
    record_events(session, [Event(TrailKind.KEY_ENDING, f"api_key:{old.prefix}", {"grace_s": grace_s})])


def _next_name(session: Session, name: str) -> str:
    """The name with the next free number behind it: `production`, `production-2`, `production-3`."""
    taken = set(session.scalars(select(ApiKey.name)))
    found = re.fullmatch(r"(?P<stem>.+)-(?P<number>[1-9][0-9]{0,5})", name)
    stem, number = (found["stem"], int(found["number"])) if found else (name, 1)
    while f"{stem}-{number + 1}" in taken:
        number += 1
    return f"{stem}-{number + 1}"


def check_key(db: Database, key: str, notes: UseNotes | None = None) -> KeyInfo | None:
    """Who a key belongs to; None where it is unknown, wrong, expired or revoked. Takes the same time for all of these.

    Args:
        db: The database; it is only read, but for the note of the use.
        key: As it was sent.
        notes: Notes the use; new ones where none are given.
    """
    mark, _, rest = key.partition("_")
    prefix, _, _ = rest.partition("_")
    query = _KEYS.add_columns(ApiKey.key_sha256)
    with db.reading() as session:
        row = (
            session.execute(query.where(ApiKey.prefix == prefix)).one_or_none() if prefix.isalnum() else None
        )
    known_sha256 = _sha256("") if row is None else row.key_sha256
    same = hmac.compare_digest(_sha256(key), known_sha256)
    if row is None or not same or mark != _MARK or row.expired or row.revoked_at is not None:
        return None
    if row.rested:
        (notes or UseNotes()).note(db, prefix)
    return _key_info(row)


def key_of_session(db: Database, prefix: str) -> KeyInfo | None:
    """The key that a session began with; None where it is expired, revoked or gone. The session's signature was checked by the caller."""
    with db.reading() as session:
        row = session.execute(_KEYS.where(ApiKey.prefix == prefix)).one_or_none()
    if row is None or row.expired or row.revoked_at is not None:
        return None
    return _key_info(row)


def revoke_key(db: Database, name: str) -> None:
    """Refuse a key from now on; a key that is revoked already stays so.

    Raises:
        NotFound: there is no key with this name.
    """
    with db.writing() as session:
        key = _key_named(session, name)
        if key.revoked_at is None:
            _retire(session, key, grace_s=0)


def _key_named(session: Session, name: str) -> Any:
    names = {name, unicodedata.normalize("NFC", name)}
    sayable = "\x00" not in name and not any("\ud800" <= one <= "\udfff" for one in name)
    row = session.execute(_KEYS.where(ApiKey.name.in_(names))).first() if sayable else None
    if row is None:
        raise NotFound(f"no API key is named {name!r}")
    return row


def list_keys(db: Database) -> list[KeyInfo]:
    """All keys, revoked ones too, in the order in which they were made."""
    with db.reading() as session:
        return [_key_info(row) for row in session.execute(_KEYS.order_by(ApiKey.id))]


_KEYS: AnySelect = (
    select(
        ApiKey.name,
        func.coalesce(Producer.name, ApiKey.name).label("producer"),
        ApiKey.prefix,
        ApiKey.scopes,
        ApiKey.created_at,
        ApiKey.expires_at,
        ApiKey.last_used_at,
        ApiKey.revoked_at,
        func.coalesce(ApiKey.expires_at <= db_now(), false()).label("expired"),
        or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= db_after(-LAST_USED_STEP_S)).label(
            "rested"
        ),
        ApiKey.person_id,
        Person.name.label("person"),
        Person.sessions_from,
    )
    .outerjoin(Producer, Producer.id == ApiKey.producer_id)
    .outerjoin(Person, Person.id == ApiKey.person_id)
)


def _key_info(row: Any) -> KeyInfo:
    return KeyInfo(
        name=row.name,
        producer=row.producer,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
        person=row.person,
        person_id=row.person_id,
        sessions_from=row.sessions_from,
    )


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
