"""Findings: outputs that say the same kind of thing, their telling words, and what people did to them."""

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, Id, Now, Short, key_reference, reference, stored_enum
from wherefrom.records import FindingEvent, Via

#: Longest word of a name, characters.
WORD_CHARS = 40


def _partial(name: str, *columns: str, where: str) -> Index:
    condition = text(where)
    return Index(name, *columns, sqlite_where=condition, postgresql_where=condition)


class Finding(Base):
    """A finding under one bundle. What went into another one keeps its row and its outputs, so that it can be taken out again."""

    __tablename__ = "finding"
    __table_args__ = (
        Index(None, "bundle_id", "outputs", "id"),
        Index(None, "outputs", "id"),
        Index(None, "merged_into"),
        _partial("ix_finding_due", "id", where="due"),
    )

    id: Mapped[Id]
    bundle_id: Mapped[int] = reference("bundle.id")
    #: What somebody calls it; NULL: its words are its name.
    title: Mapped[Short | None]
    #: The finding that it went into by hand, which stands by itself: never more than one step.
    merged_into: Mapped[int | None] = mapped_column(BIG, ForeignKey("finding.id"))
    #: The finding of another bundle whose name it took over, because most of its founders stood there.
    carried_from: Mapped[int | None] = mapped_column(BIG, index=True)
    #: Its outputs, with those of what went into it.
    outputs: Mapped[int]
    newest_at: Mapped[datetime | None]
    #: `FindingSource`s as JSON.
    sources: Mapped[list[Any]]
    #: How many words it got, of which some may have been erased since.
    num_words: Mapped[int]
    #: Its words and sources are to be worked out again.
    due: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[Now]
    counted_at: Mapped[datetime | None]


class FindingOutput(Base):
    """An output that was looked at under a bundle, and the finding it stands in; it is placed once, and only people move it."""

    __tablename__ = "finding_output"
    __table_args__ = (
        Index(None, "finding_id", "audit_id"),
        _partial("ix_finding_output_loose", "bundle_id", "audit_id", where="finding_id IS NULL"),
        _partial("ix_finding_output_exemplar", "bundle_id", "finding_id", where="exemplar"),
    )

    audit_id: Mapped[int] = key_reference("audit.id")
    #: Copied from the audit.
    bundle_id: Mapped[int] = reference("bundle.id")
    #: NULL where it is like nothing else so far.
    finding_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("finding.id"))
    #: New outputs are compared with it.
    exemplar: Mapped[bool] = mapped_column(Boolean)
    placed_at: Mapped[Now]


class FindingWord(Base):
    """One word of a finding's name and an output that has it. The row goes with the output's text, so no name keeps what was erased."""

    __tablename__ = "finding_word"

    finding_id: Mapped[int] = key_reference("finding.id")
    #: From 1, the most telling first.
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    flagged_output_id: Mapped[int] = mapped_column(
        BIG,
        ForeignKey("flagged_text.flagged_output_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
        index=True,
    )
    word: Mapped[str] = mapped_column(String(WORD_CHARS))


class FindingMark(Base):
    """How far the outputs of a bundle were looked at."""

    __tablename__ = "finding_mark"

    bundle_id: Mapped[int] = key_reference("bundle.id")
    #: Answers that ended before it were looked at.
    looked_to: Mapped[datetime | None]
    #: Outputs without a finding are looked at again page by page, behind this audit; NULL: from the newest.
    loose_to: Mapped[int | None] = mapped_column(BIG)
    #: Grows with each look, so that of two sweepers one stores what it found.
    version: Mapped[int]


class FindingEntryRow(Base):
    """One entry of a finding's history. Append-only."""

    __tablename__ = "finding_entry"
    __table_args__ = (Index(None, "finding_id", "id"),)

    id: Mapped[Id]
    finding_id: Mapped[int] = reference("finding.id")
    event: Mapped[FindingEvent] = mapped_column(stored_enum(FindingEvent, "finding_event"))
    other_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("finding.id"))
    outputs: Mapped[int]
    title: Mapped[Short | None]
    #: Findings that a merge moved: the other one, and what had gone into it.
    moved: Mapped[list[Any] | None]
    person_id: Mapped[int | None] = mapped_column(BIG, ForeignKey("person.id"))
    via: Mapped[Via | None] = mapped_column(stored_enum(Via, "finding_via"))
    created_at: Mapped[Now]
