"""People: names that stand behind keys and sessions. What they may do is written on their keys (`db.access.keys.Scope`), never here.

On a machine that asks for no keys, one chooses a name (`choose_local`). Anybody there can take any name, so a name with a key cannot be
taken, and what is judged under a chosen name says so for ever.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.access.producers import ensure_named
from db.audit_trail.trail import Event, TrailKind, record_events
from db.models import ApiKey, Person
from db.session import Database
from wherefrom.errors import ConfigurationError, Forbidden, InvalidRequest, NotFound
from wherefrom.records import PersonRef


@dataclass(frozen=True)
class PersonInfo:
    """A person, and whether a key proves who they are."""

    person_id: int
    name: str
    created_at: datetime
    #: Keys that were made for them, revoked ones too.
    keys: int

    @property
    def ref(self) -> PersonRef:
        """The person as other records name them."""
        return PersonRef(person_id=self.person_id, name=self.name)


def ensure_person(session: Session, name: str) -> int:
    """The id of the person of this name, who is added where they are missing.

    Raises:
        ConfigurationError: the name cannot be used, or differs from a person's name only in case or form of letters.
    """
    known = set(session.scalars(select(Person.id)))
    person_id = ensure_named(session, Person, name, what="person")
    if person_id not in known:
        record_events(session, [Event(TrailKind.PERSON_ADDED, f"person:{person_id}")])
    return person_id


def choose_local(db: Database, name: str) -> PersonInfo:
    """The person of a name that somebody without a key has chosen; added where they are missing.

    Raises:
        Forbidden: a key was made for this name, so only who holds it may use it.
        InvalidRequest: the name cannot be used.
    """
    try:
        with db.writing() as session:
            person_id = ensure_person(session, name)
            found = _info(session, person_id)
    except ConfigurationError as error:
        raise InvalidRequest(str(error)) from error
    if found.keys:
        raise Forbidden(f"a key was made for {found.name!r}: sign in with it, or choose another name")
    return found


def local_person(db: Database, person_id: int) -> PersonRef | None:
    """The person that somebody without a key chose to be; None as soon as a key was made for them."""
    with db.reading() as session:
        row = session.execute(_PEOPLE.where(Person.id == person_id)).one_or_none()
    return None if row is None or row.keys else PersonRef(person_id=row.person_id, name=row.name)


def named_person(db: Database, name: str) -> PersonRef:
    """The person of a name that was proven elsewhere; added where they are missing.

    Raises:
        ConfigurationError: the name cannot be used, or differs from a person's name only in case or form of letters.
    """
    with db.reading() as session:
        row = session.execute(select(Person.id, Person.name).where(Person.name == name)).one_or_none()
    if row is None:
        with db.writing() as session:
            found = _info(session, ensure_person(session, name))
        return found.ref
    return PersonRef(person_id=row.id, name=row.name)


def get_person(db: Database, person_id: int) -> PersonInfo:
    """One person.

    Raises:
        NotFound: there is nobody with this number.
    """
    with db.reading() as session:
        row = session.execute(_PEOPLE.where(Person.id == person_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"person {person_id} does not exist; choose somebody of the list")
    return PersonInfo(**row)


def list_people(db: Database) -> list[PersonInfo]:
    """All people by name."""
    with db.reading() as session:
        return [PersonInfo(**row) for row in session.execute(_PEOPLE.order_by(Person.name)).mappings()]


def end_sessions(db: Database, person_id: int, *, now: datetime) -> None:
    """Refuse every session of a person that began up to now."""
    with db.writing() as session:
        session.execute(update(Person).where(Person.id == person_id).values(sessions_from=now))
        record_events(session, [Event(TrailKind.PERSON_SIGNED_OUT, f"person:{person_id}")])


def _info(session: Session, person_id: int) -> PersonInfo:
    return PersonInfo(**session.execute(_PEOPLE.where(Person.id == person_id)).mappings().one())


_PEOPLE = select(
    Person.id.label("person_id"),
    Person.name,
    Person.created_at,
    select(func.count())
    .where(ApiKey.person_id == Person.id)
    .correlate(Person)
    .scalar_subquery()
    .label("keys"),
)
