"""What-ifs: what leaving a fix list out would do to chosen outputs."""

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import (
    Base,
    Id,
    LeaseColumns,
    Short,
    key_reference,
    reference,
    running_has_owner,
    stored_enum,
)
from wherefrom.records import MeasurementState


class WhatIf(LeaseColumns, Base):
    """One question about one list over one bundle; a queue whose rows are worked off a few outputs at a time."""

    __tablename__ = "what_if"
    __table_args__ = (
        Index(None, "bundle_id", "state", "id"),
        Index(None, "list_id", "id"),
        running_has_owner(),
    )

    id: Mapped[Id]
    list_id: Mapped[int] = reference("fix_list.id")
    bundle_id: Mapped[int] = reference("bundle.id")
    state: Mapped[MeasurementState] = mapped_column(stored_enum(MeasurementState, "what_if_state"))
    #: Rows of the corpus that are left out, as the list was when it was asked.
    corpus_rows: Mapped[list[Any]]
    #: Rows of the list that the corpus does not hold.
    other_rows: Mapped[int]
    #: The filter that chose the outputs.
    filter: Mapped[dict[str, Any]]
    basis: Mapped[Short | None]
    requested_by: Mapped[Short]


class WhatIfOutputRow(Base):
    """One output of a what-if; without a text of it."""

    __tablename__ = "what_if_output"
    __table_args__ = (Index(None, "what_if_id", "scored", "audit_id"),)

    what_if_id: Mapped[int] = key_reference("what_if.id")
    audit_id: Mapped[int] = key_reference("audit.id", index=True)
    #: A worker has answered for it, with a score or a code.
    scored: Mapped[bool]
    score: Mapped[float | None]
    z: Mapped[float | None]
    chance: Mapped[float | None]
    effect_nats: Mapped[float | None]
    low_nats: Mapped[float | None]
    high_nats: Mapped[float | None]
    code: Mapped[Short | None]
