"""Builds over many machines: what is to be read, and which parts of it are done."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import (
    BIG,
    Base,
    Id,
    LeaseColumns,
    Now,
    Sha256,
    Short,
    reference,
    running_has_owner,
    stored_enum,
)
from wherefrom.records import MeasurementState


class SharedBuild(Base):
    """One corpus that is read for a bundle by many machines."""

    __tablename__ = "shared_build"
    __table_args__ = (UniqueConstraint("identity"),)

    id: Mapped[Id]
    #: Hash of what decides the signals, of the shared folder, and of the size of parts: the same command finds its build again.
    identity: Mapped[Sha256]
    #: Path or URL of the shared folder.
    store: Mapped[str]
    #: What a worker must know, as the engine made it.
    plan: Mapped[dict[str, Any]]
    parts: Mapped[int]
    tokens: Mapped[int] = mapped_column(BIG)
    created_at: Mapped[Now]
    #: The last worker that could take no part, and why.
    refused_by: Mapped[Short | None]
    refused_code: Mapped[Short | None]
    refused_reason: Mapped[str | None]
    refused_at: Mapped[datetime | None]


class BuildPart(LeaseColumns, Base):
    """Some consecutive rows of a build; a queue."""

    __tablename__ = "build_part"
    __table_args__ = (
        UniqueConstraint("build_id", "number"),
        Index(None, "build_id", "state", "id"),
        running_has_owner(),
    )

    id: Mapped[Id]
    build_id: Mapped[int] = reference("shared_build.id")
    number: Mapped[int]
    state: Mapped[MeasurementState] = mapped_column(stored_enum(MeasurementState, "build_part_state"))
    first_row: Mapped[int] = mapped_column(BIG)
    num_rows: Mapped[int]
    tokens: Mapped[int] = mapped_column(BIG)
    #: Hash of the file of its rows.
    rows_sha256: Mapped[Sha256]
    #: Files that were made of it; None before.
    output: Mapped[dict[str, Any] | None]
