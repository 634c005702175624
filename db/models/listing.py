"""What the desk keeps about lists of audits: what a listing says of itself, and views that people saved."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Sha256, Short, reference


class ListingFactsRow(Base):
    """How many audits a filter finds and how many of them are supported, as it was when it was worked out; `db.reading.listings` has the rules."""

    __tablename__ = "listing_facts"

    id: Mapped[Id]
    #: Hash of filter and level.
    key: Mapped[Sha256] = mapped_column(unique=True)
    #: An `AuditFilter` as JSON.
    filter: Mapped[dict[str, Any]]
    #: False discovery rate; NULL where nothing is judged.
    level: Mapped[float | None]
    #: Counted up to a limit; `more` says that there are more.
    matching: Mapped[int]
    more: Mapped[bool] = mapped_column(Boolean)
    p_limit: Mapped[float | None]
    supported: Mapped[int | None]
    judged: Mapped[int | None]
    uncalibrated: Mapped[int | None]
    #: Number of the newest change in the trail when it was worked out.
    newest_event: Mapped[int] = mapped_column(BIG)
    first_asked_at: Mapped[Now]
    asked_at: Mapped[Now]
    #: NULL: it was asked for, and nobody has worked it out.
    computed_at: Mapped[datetime | None]


class SourceLook(Base):
    """The last look over all sources, and whether somebody waits for another; one row. `db.reading.source_facts` has the rules."""

    __tablename__ = "source_look"

    id: Mapped[Id]
    #: Edges of the stretches of time in which blame is counted, and the answered audits of each.
    edges: Mapped[list[Any]]
    audits: Mapped[list[Any]]
    #: Number of the newest change in the trail when it began.
    newest_event: Mapped[int] = mapped_column(BIG)
    first_asked_at: Mapped[Now]
    asked_at: Mapped[Now]
    #: When it began; NULL: none is whole yet.
    computed_at: Mapped[datetime | None]


class SourceFactsRow(Base):
    """What the last look found of one source."""

    __tablename__ = "source_facts"

    source: Mapped[str] = mapped_column(primary_key=True)
    #: A `SourceSummary` and a `SourceBlame` as JSON.
    summary: Mapped[dict[str, Any]]
    blame: Mapped[dict[str, Any]]
    #: Its first citations in each stretch of time.
    firsts: Mapped[list[Any]]


class SavedView(Base):
    """A list of audits that somebody keeps under a name: its address, so that `today` stays today."""

    __tablename__ = "saved_view"
    __table_args__ = (UniqueConstraint("person_id", "name"),)

    id: Mapped[Id]
    person_id: Mapped[int] = reference("person.id")
    name: Mapped[Short]
    #: Parameters of the list as they were typed, as JSON.
    parameters: Mapped[dict[str, Any]]
    created_at: Mapped[Now]
