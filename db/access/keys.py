"""API keys: made once, shown once, kept as a hash. Who may do what with a scope is `web`'s business.

A key is ``wf_<prefix>_<secret>`` with 256 random bits in the secret, so a fast hash is enough. The prefix finds the row and may be
shown to people. A key belongs to a producer (`db.access.producers`), which keeps its idempotency keys when its API keys change. A person may
stand behind it (`db.access.people`); only such a key judges.
"""

import hashlib
import hmac
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import false, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from db.access.budgets import NO_QUOTAS, Quotas, quotas_of
from db.access.people import ensure_person
from db.access.producers import checked_name, ensure_producer
from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_after, db_now
from db.models import ApiKey, Person, Producer
from db.session import Database
from db.sight import NO_LIMITS, Limits, limits_of
from db.statements import AnySelect
from wherefrom.errors import ConfigurationError, NotFound, WherefromError

#: `last_used_at` is written, or tried to be written, at most this often, seconds: reading must not cost a write each time.
LAST_USED_STEP_S = 60.0

#: Keys that end within this time are told of, and those that ended so long ago.
ENDS_SOON = timedelta(days=14)

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
    #: Which outputs it may see and send.
    limits: Limits = NO_LIMITS
    #: How much it may do.
    quotas: Quotas = NO_QUOTAS
    key_id: int = 0

    def is_ending(self, now: datetime) -> bool:
        """Whether a key that was used ends soon, or has ended a short while ago."""
        used = self.last_used_at is not None and self.revoked_at is None
        return used and self.expires_at is not None and abs(self.expires_at - now) <= ENDS_SOON

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
    limits: Limits = NO_LIMITS,
    quotas: Quotas = NO_QUOTAS,
) -> str:
    """Make a key and return it, this one time.

    Args:
        db: The database.
        name: What the key is called. Unique for ever, so that a name means one key.
        scopes: What it may do, at least one value of `Scope`.
        expires_at: From when it is refused, aware; None for never.
        producer: Whose it is; made where it is missing. None: a producer of the key's name.
        person: Who stands behind it; made where they are missing. None: a person of the key's name where the key may review, else nobody.
        limits: Which outputs it may see and send; by default all of them.
        quotas: How much it may do; by default all that it wants.

    Raises:
        ConfigurationError: a name is taken, reserved or empty, a scope does not exist, or the limits do not suit the scopes.
    """
    try:
        granted = sorted({Scope(one).value for one in scopes})
    except ValueError as error:
        raise ConfigurationError(f"{error}; the scopes are {', '.join(Scope)}") from error
    if not granted:
        raise ConfigurationError("a key needs at least one scope")
    wanted = checked_name(name, what="a key")
    _check_limits(limits, granted, producer or wanted)
    quotas.check()
    behind = person or (wanted if Scope.REVIEW in granted else None)
    try:
        with db.writing() as session:
            owner = KeyOwner(
                ensure_producer(session, producer or wanted),
                None if behind is None else ensure_person(session, behind),
            )
            terms = KeyTerms(granted, expires_at, limits, quotas)
            return insert_key(session, wanted, owner, terms)
    except IntegrityError as error:
        raise ConfigurationError(f"a key named {name!r} is or was in use; choose another name") from error


@dataclass(frozen=True)
class KeyOwner:
    """Whose a key is: under whose name records are stored, and who judges with it."""

    producer_id: int
    person_id: int | None


@dataclass(frozen=True)
class KeyTerms:
    """What a key may do, of what, and until when."""

    scopes: list[str]
    expires_at: datetime | None
    limits: Limits
    quotas: Quotas


def _check_limits(limits: Limits, scopes: Sequence[str], producer: str) -> None:
    """Refuse limits that would not hold, or would leave nothing."""
    if not limits.given:
        return
    if wide := {Scope.ADMIN, Scope.METRICS}.intersection(scopes):
        raise ConfigurationError(
            f"a key with the scope {min(wide)} cannot be limited: it speaks of the service as a whole; leave the scope or the limits out"
        )
    if Scope.INGEST in scopes and limits.queues:
        raise ConfigurationError(
            "a key that flags outputs cannot be limited to queues: outputs enter them later; make two keys"
        )
    if Scope.INGEST in scopes and limits.producers and producer not in limits.producers:
        raise ConfigurationError(
            f"the key flags outputs of the producer {producer!r}, which is not among its producers; add it with --only-producer, or choose --producer"
        )


def insert_key(session: Session, name: str, owner: KeyOwner, terms: KeyTerms) -> str:
    """Store a key; the key itself, this one time."""
    prefix = secrets.token_hex(4)
    key = f"{_MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    row = {
        "name": name,
        "producer_id": owner.producer_id,
        "person_id": owner.person_id,
        "prefix": prefix,
        "key_sha256": _sha256(key),
        "scopes": terms.scopes,
        "limits": terms.limits.stored(),
        "quotas": terms.quotas.stored(),
        "expires_at": terms.expires_at,
    }
    session.execute(insert(ApiKey), [row])
    said = {"scopes": terms.scopes} | ({"limited": True} if terms.limits.given else {})
    record_events(session, [Event(TrailKind.KEY_CREATED, f"api_key:{prefix}", said)])
    return key


def retire(session: Session, old: Any, *, grace_s: float) -> None:
    """Let a key end after the grace, or where it ends anyway before that."""
    mine = update(ApiKey).where(ApiKey.prefix == old.prefix)
    if grace_s <= 0:
        session.execute(mine.values(revoked_at=db_now()))
        record_events(session, [Event(TrailKind.KEY_REVOKED, f"api_key:{old.prefix}")])
        return
    later = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > db_after(grace_s))
    session.execute(mine.where(later).values(expires_at=db_after(grace_s)))
    record_events(session, [Event(TrailKind.KEY_ENDING, f"api_key:{old.prefix}", {"grace_s": grace_s})])


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


def set_quotas(db: Database, name: str, quotas: Quotas) -> None:
    """Bound what a key may do from now on; quotas without a number take every bound away. What it spent today stays spent.

    Raises:
        NotFound: there is no key with this name.
        ConfigurationError: the quotas mean nothing.
    """
    quotas.check()
    with db.writing() as session:
        key = key_named(session, name)
        changed = update(ApiKey).where(ApiKey.prefix == key.prefix).values(quotas=quotas.stored())
        session.execute(changed)
        said = quotas.stored() or {}
        record_events(session, [Event(TrailKind.KEY_BOUNDED, f"api_key:{key.prefix}", dict(said))])


def revoke_key(db: Database, name: str) -> None:
    """Refuse a key from now on; a key that is revoked already stays so.

    Raises:
        NotFound: there is no key with this name.
    """
    with db.writing() as session:
        key = key_named(session, name)
        if key.revoked_at is None:
            retire(session, key, grace_s=0)


def key_named(session: Session, name: str) -> Any:
    """The row of a key.

    Raises:
        NotFound: there is no key with this name.
    """
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
        ApiKey.id.label("key_id"),
        ApiKey.limits,
        ApiKey.quotas,
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
        limits=limits_of(row.limits),
        quotas=quotas_of(row.quotas),
        key_id=row.key_id,
    )


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
