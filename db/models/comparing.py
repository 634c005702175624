"""Two bundles over the outputs that were audited under both; `db.comparison.comparing` works them out."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, JSON_COLUMN, Base, Id, Now, key_reference, reference


class BundleComparisonRow(Base):
    """Two bundles that somebody compares, how far that is, and what it came to."""

    __tablename__ = "bundle_comparison"
    __table_args__ = (UniqueConstraint("bundle_id", "other_bundle_id"),)

    id: Mapped[Id]
    bundle_id: Mapped[int] = reference("bundle.id")
    other_bundle_id: Mapped[int] = reference("bundle.id")
    #: The look over the audits of the other bundle that is under way goes on behind this one, by time and number; NULL: none has begun.
    next_at: Mapped[datetime | None]
    next_audit: Mapped[int] = mapped_column(BIG)
    #: Outputs that this look has found under both.
    seen: Mapped[int]
    #: Number of the newest change in the trail when this look began, and when the last whole one did.
    pass_event: Mapped[int] = mapped_column(BIG)
    newest_event: Mapped[int] = mapped_column(BIG)
    #: The look is at the end of its audits and sums up, behind this output: a `Sums` as JSON; NULL: it is not.
    summed_to: Mapped[int | None] = mapped_column(BIG)
    sums: Mapped[dict[str, Any] | None] = mapped_column(JSON_COLUMN)
    #: A `ComparisonSummary` as JSON.
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON_COLUMN)
    first_asked_at: Mapped[Now]
    asked_at: Mapped[Now]
    #: When somebody went on with it last: a look that does not go on is stuck. NULL: nobody has.
    stepped_at: Mapped[datetime | None]
    #: NULL: it was asked for, and no look is whole yet.
    computed_at: Mapped[datetime | None]


class ComparedOutputRow(Base):
    """One output under two bundles, as its audits were when they were compared."""

    __tablename__ = "compared_output"
    __table_args__ = (Index(None, "comparison_id", "moved", "flagged_output_id"),)

    comparison_id: Mapped[int] = key_reference("bundle_comparison.id")
    flagged_output_id: Mapped[int] = key_reference("flagged_output.id")
    audit_id: Mapped[int] = reference("audit.id")
    other_audit_id: Mapped[int] = reference("audit.id")
    #: When each was answered: an audit that was answered again is compared again.
    finished_at: Mapped[datetime]
    other_finished_at: Mapped[datetime]
    stayed: Mapped[int]
    gone: Mapped[int]
    came: Mapped[int]
    #: Share of the citations' strength (1 / rank) that went elsewhere.
    moved: Mapped[float]
    top_changed: Mapped[bool] = mapped_column(Boolean)
