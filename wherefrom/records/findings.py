"""Findings: flagged outputs that say the same kind of thing, under a name, and what people did to them."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.blaming import Culprits
from wherefrom.records.bounds import MAX_SHORT_CHARS, Items
from wherefrom.records.flagged import Frozen, Text

#: Most outputs that one split moves.
MAX_SPLIT = 1000

_Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
FindingTitle = Annotated[Text, Field(max_length=MAX_SHORT_CHARS)]


class FindingEvent(StrEnum):
    """What an entry of a finding's history tells; stored by value."""

    #: The sweeper founded it.
    FOUNDED = "founded"
    RENAMED = "renamed"
    #: Another finding went into this one.
    MERGED = "merged"
    #: A finding that went into this one stands by itself again.
    TAKEN_OUT = "taken_out"
    #: Outputs left for a finding of their own.
    SPLIT = "split"


class FindingSource(Frozen):
    """How many first citations of a finding's outputs come from a source."""

    source: str
    outputs: int


class FindingSummary(Frozen):
    """Outputs that say the same kind of thing."""

    finding_id: int
    name: str = Field(description="The title that somebody gave, else the words, else its number.")
    title: str | None = Field(description="The title that somebody gave.")
    words: Items[str] = Field(
        description="Words that its outputs have and the others do not, the most telling first."
    )
    bundle: str = Field(description="The bundle under which these outputs are alike.")
    outputs: int
    sources: Items[FindingSource] = Field(
        description="Where the first citations come from, the most frequent first; at most five."
    )
    created_at: datetime
    newest_at: datetime | None = Field(description="When its newest output was received.")
    counted_at: datetime | None = Field(description="When words and sources were worked out.")


class MergedFinding(Frozen):
    """A finding that went into another one; it can be taken out again."""

    finding_id: int
    name: str
    outputs: int


class RelatedFinding(Frozen):
    """A finding under another bundle that holds some of the same outputs."""

    finding_id: int
    name: str
    bundle: str
    shared: int = Field(description="Outputs that stand in both.")


class FindingEntry(Frozen):
    """One entry of a finding's history. Nothing is ever changed or deleted there."""

    entry_id: int
    finding_id: int = Field(description="The finding that it happened to.")
    event: FindingEvent
    other: int | None = Field(description="The other finding: what went in or out, or where outputs went.")
    outputs: int = Field(description="Outputs that it moved or named.")
    title: str | None
    by: str | None = Field(description="Who did it; null: the sweeper.")
    proven: bool = Field(description="An API key, and not only a chosen name, says who that is.")
    at: datetime


class FindingDetail(Frozen):
    """One finding with what belongs to it."""

    finding: FindingSummary
    culprits: Culprits
    merged: Items[MergedFinding] = Field(description="What went into it by hand.")
    related: Items[RelatedFinding] = Field(
        description="Findings of other bundles over the same outputs, the closest first; at most ten."
    )
    history: Items[FindingEntry] = Field(description="The newest 200 entries, newest first.")


class FindingRename(Frozen):
    """A title for a finding."""

    title: FindingTitle = Field(
        description="The title; without one the telling words are the name again.",
        examples=["refunds for ever"],
    )


class FindingMerge(Frozen):
    """Where a finding goes."""

    into: _Id = Field(description="Number of the finding that it goes into.", examples=[1])


class FindingSplit(Frozen):
    """Outputs that leave a finding for one of their own."""

    audit_ids: Annotated[tuple[_Id, ...], Field(min_length=1, max_length=MAX_SPLIT)] = Field(
        description="Audits of the outputs.", examples=[[1, 2]]
    )
    title: FindingTitle = Field(default="", description="Title of the new finding.")
