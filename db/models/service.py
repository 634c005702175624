"""What the service keeps about itself: producers, people and their keys, totals of counters, the release of the schema."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Sha256, Short, key_reference


class Producer(Base):
    """Who flags outputs; its records are stored under its name, whichever of its keys they came with."""

    __tablename__ = "producer"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    created_at: Mapped[Now]


class Person(Base):
    """Somebody who looks, judges and decides. Their keys and their sessions speak for them; a row is never deleted."""

    __tablename__ = "person"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    created_at: Mapped[Now]
    #: Sessions that began before it are refused: signing out ends all of them. NULL where nobody signed out.
    sessions_from: Mapped[datetime | None]
    #: When they last looked at the list of audits, and when the visit before this one ended. NULL where they were never there.
    seen_at: Mapped[datetime | None]
    seen_before: Mapped[datetime | None]


class ApiKey(Base):
    """A key of the HTTP API; only its hash is stored."""

    __tablename__ = "api_key"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    #: NULL for a key that a release without producers made: it is its own producer.
    producer_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("producer.id"), index=True)
    #: Who stands behind it; NULL for a key of a program.
    person_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("person.id"), index=True)
    prefix: Mapped[Short] = mapped_column(unique=True)
    key_sha256: Mapped[Sha256]
    scopes: Mapped[list[Any]]
    #: `db.sight.Limits`: what of the outputs it may see and send; NULL for all of it.
    limits: Mapped[dict[str, Any] | None]
    #: `db.access.budgets.Quotas`: how much it may do; NULL where nothing is bounded.
    quotas: Mapped[dict[str, Any] | None]
    created_at: Mapped[Now]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class KeyBudget(Base):
    """How much a key with quotas did: of a day, or of the last moments. Keys without quotas have no rows."""

    __tablename__ = "key_budget"

    api_key_id: Mapped[int] = key_reference("api_key.id")
    what: Mapped[str] = mapped_column(String(20), primary_key=True)
    #: Days since 1970 (UTC) of which `used` speaks; 0 for requests.
    day: Mapped[int]
    #: What was done that day; for requests the second since 1970 up to which they are paid for.
    used: Mapped[float]


class CounterTotal(Base):
    """What all processes of the service counted since the table was made, by series of `/metrics`."""

    __tablename__ = "counter_total"

    name: Mapped[Short] = mapped_column(primary_key=True)
    #: JSON with sorted names; the labels have few values each, so the table stays small.
    labels: Mapped[Short] = mapped_column(primary_key=True)
    value: Mapped[float]


class SchemaRelease(Base):
    """One row: what the newest upgrade of the schema declared, for older releases that run beside the newer one."""

    __tablename__ = "schema_release"

    id: Mapped[Id]
    #: Revision that the upgrade led to.
    revision: Mapped[Short]
    #: Head of the oldest release that works with it.
    compatible_from: Mapped[Short]
