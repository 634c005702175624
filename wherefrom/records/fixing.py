"""Fix lists: what people decided about training examples before the next training, and who decided it when."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, model_validator

from wherefrom.records.bounds import MAX_GROUP, MAX_SHORT_CHARS, MAX_SOURCE, Details, Items
from wherefrom.records.filters import AuditFilter
from wherefrom.records.flagged import Frozen, Text

#: Longest reason of a row, and longest note on a list, characters.
MAX_REASON = 1000
#: Most culprits of a filter that one press puts on a list.
MAX_CULPRITS = 1000


class FixAction(StrEnum):
    """What is to become of a training example; stored by value."""

    #: Leave it out of the next training.
    REMOVE = "remove"
    #: Correct its text; until then it is left out.
    FIX = "fix"
    #: It was looked at and stays: a source that goes as a whole goes without it.
    KEEP = "keep"

    @property
    def leaves(self) -> bool:
        """Whether the corpus loses the row as it is now."""
        return self is not FixAction.KEEP

    @property
    def label(self) -> str:
        """The action on buttons and in tables."""
        return self.value.capitalize()


class FixEvent(StrEnum):
    """What an entry of a list's history tells; stored by value."""

    CREATED = "created"
    #: Rows got an action.
    SET = "set"
    #: Rows were taken off the list.
    TAKEN_OFF = "taken_off"
    GIVEN = "given"
    CLOSED = "closed"


ListName = Annotated[Text, Field(min_length=1, max_length=MAX_SHORT_CHARS)]
_Reason = Annotated[Text, Field(max_length=MAX_REASON)]
_RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class FixListDraft(Frozen):
    """A fix list to be made."""

    name: ListName = Field(
        description="Name of the list, unique for ever.", examples=["refund promises, January"]
    )
    note: _Reason = Field(default="", description="What it is for.")


class FixListSummary(FixListDraft):
    """A fix list with what it holds."""

    list_id: int
    owner: str = Field(description="Who decides about it.")
    created_at: datetime
    closed_at: datetime | None = Field(description="From when nothing on it changes.")
    remove: int = Field(description="Training examples to be left out.")
    fix: int = Field(description="Training examples to be corrected.")
    keep: int = Field(description="Training examples that were looked at and stay.")

    @property
    def rows(self) -> int:
        """All training examples on it."""
        return self.remove + self.fix + self.keep


class FixChange(Frozen):
    """Rows that go on a list, or change there: by number, all of a source, or the culprits of a filter."""

    action: FixAction | None = Field(
        default=FixAction.REMOVE, description="What is to become of the rows; null takes them off the list."
    )
    reason: _Reason = Field(default="", description="Why.")
    training_example_ids: Annotated[tuple[_RowId, ...], Field(max_length=MAX_GROUP)] = Field(
        default=(), description="Numbers of stored training examples."
    )
    source: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_SOURCE,
        description="All stored training examples of this data source. Rows that are on the list already keep what was decided about them.",
    )
    culprits: AuditFilter | None = Field(
        default=None, description="The culprits of the audits that pass this filter, strongest first."
    )
    most: int = Field(default=20, ge=1, le=MAX_CULPRITS, description="How many culprits.")
    least_outputs: int = Field(
        default=1, ge=1, description="Culprits are cited by at least so many outputs of the filter."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = (bool(self.training_example_ids), self.source is not None, self.culprits is not None)
        if sum(ways) != 1:
            raise ValueError("give one of training_example_ids, source and culprits")
        return self


class FixChanged(Frozen):
    """What became of a change."""

    matched: int = Field(description="Training examples that it names.")
    changed: int = Field(description="Those whose action was set, or that were taken off.")


class FixRow(Frozen):
    """One training example on a fix list. Whoever retrains needs `example_id` and `action`."""

    training_example_id: int
    example_id: str
    source: str
    action: FixAction
    reason: str
    by: str = Field(description="Who decided it.")
    proven: bool = Field(description="An API key, and not only a chosen name, says who that is.")
    decided_at: datetime
    outputs: int = Field(description="Audits that cite it.")
    prompt: str
    completion: str
    text_sha256: str
    corpus_sha256: str
    row: int = Field(description="Place in its corpus, from 0.")
    fields: Details


class FixEntry(Frozen):
    """One entry of a list's history. Nothing is ever changed or deleted there."""

    entry_id: int
    event: FixEvent
    action: FixAction | None
    reason: str
    rows: int = Field(description="Training examples that it changed.")
    #: The first of them, where they were named one by one.
    training_example_ids: Items[int]
    source: str | None
    culprits: Details | None = Field(description="The filter whose culprits they are, as it was written.")
    by: str
    proven: bool
    at: datetime
