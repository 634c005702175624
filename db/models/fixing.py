"""Fix lists: the lists, what is on them now, and their history."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import Base, Id, Now, Short, key_reference, reference, stored_enum
from wherefrom.records import FixAction, FixEvent, Via


class FixList(Base):
    """A list of decisions about training examples."""

    __tablename__ = "fix_list"

    id: Mapped[Id]
    name: Mapped[Short] = mapped_column(unique=True)
    note: Mapped[str]
    owner_id: Mapped[int] = reference("person.id")
    created_at: Mapped[Now]
    closed_at: Mapped[datetime | None]


class FixListEntry(Base):
    """One entry of a list's history. Append-only."""

    __tablename__ = "fix_list_entry"
    __table_args__ = (Index(None, "list_id", "id"),)

    id: Mapped[Id]
    list_id: Mapped[int] = reference("fix_list.id")
    event: Mapped[FixEvent] = mapped_column(stored_enum(FixEvent, "fix_event"))
    action: Mapped[FixAction | None] = mapped_column(stored_enum(FixAction, "fix_entry_action"))
    reason: Mapped[str]
    rows: Mapped[int] = mapped_column("num_rows", Integer().with_variant(BigInteger(), "postgresql"))
    #: The first training examples, where they were named one by one.
    training_example_ids: Mapped[list[Any] | None]
    #: NULL but for all rows of a source.
    source: Mapped[str | None]
    #: NULL but for culprits: their filter.
    culprits: Mapped[dict[str, Any] | None]
    person_id: Mapped[int] = reference("person.id")
    via: Mapped[Via] = mapped_column(stored_enum(Via, "fix_via"))
    created_at: Mapped[Now]


class FixListRow(Base):
    """A training example on a list. Its text stays in its own table; the entry says who decided, when and why."""

    __tablename__ = "fix_list_row"
    __table_args__ = (Index(None, "list_id", "action", "training_example_id"),)

    list_id: Mapped[int] = key_reference("fix_list.id")
    training_example_id: Mapped[int] = key_reference("training_example.id", index=True)
    action: Mapped[FixAction] = mapped_column(stored_enum(FixAction, "fix_action"))
    entry_id: Mapped[int] = reference("fix_list_entry.id")
