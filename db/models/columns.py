"""Kinds of columns that the tables share, and the root of all tables."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Enum,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.clock import UtcTimestamp, db_now

BIG = Integer().with_variant(BigInteger(), "postgresql")
JSON_COLUMN = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Id = Annotated[int, mapped_column(BIG, primary_key=True)]
Sha256 = Annotated[str, mapped_column(String(64))]
Short = Annotated[str, mapped_column(String(200))]
Now = Annotated[datetime, mapped_column(UtcTimestamp, default=db_now())]


def stored_enum(enum: type[StrEnum], name: str) -> Enum:
    """An enum kept by value in a text column, held by a CHECK (no native ENUM: those are hard to migrate)."""
    return Enum(
        enum,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=20,
        values_callable=lambda members: [member.value for member in members],
    )


def reference(column: str, *, index: bool = False) -> Any:
    """A column that holds the id of a row of another table."""
    return mapped_column(BIG, ForeignKey(column), index=index)


def key_reference(column: str, *, index: bool = False) -> Any:
    """A column of the key that holds the id of a row of another table."""
    return mapped_column(BIG, ForeignKey(column), primary_key=True, autoincrement=False, index=index)


class Base(DeclarativeBase):
    """Root of all tables; every constraint and index has a name, so that migrations can drop it on both engines."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        float: Float(53),
        datetime: UtcTimestamp(),
        dict[str, Any]: JSON_COLUMN,
        list[Any]: JSON_COLUMN,
    }


def running_has_owner() -> CheckConstraint:
    """The rule of a table with `LeaseColumns`: who works on a row holds it, and nobody else does."""
    return CheckConstraint("(state = 'running') = (lease_owner IS NOT NULL)", name="running_has_owner")


class LeaseColumns:
    """Columns of the tables whose rows are claimed under a lease; `db.queues.leases` has their rules."""

    code: Mapped[Short | None]
    reason: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(default=0)
    #: Claims that do not count: those before it was asked for again, and those that ended before work on this row alone began.
    #: `attempt - attempt_floor` counts against the limit.
    attempt_floor: Mapped[int] = mapped_column(default=0)
    lease_owner: Mapped[Short | None]
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    created_at: Mapped[Now]
    claimed_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
