"""Erasure, retention and legal hold: which outputs are meant, what was asked for, and what is kept from both."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from wherefrom.records.bounds import MAX_SHORT_CHARS
from wherefrom.records.flagged import Frozen, Severity, Text

#: In the place of a digest of a text that was erased.
NO_DIGEST = "0" * 64
#: Longest reason of an erasure or a hold, characters.
MAX_ERASURE_REASON = 1000
#: Most outputs that one request names by their audits.
MAX_NAMED_AUDITS = 1000
#: Longest time that a rule keeps a text: a hundred years.
MAX_RETENTION_DAYS = 36_525

_Word = Annotated[Text, Field(min_length=1, max_length=MAX_SHORT_CHARS)]
_Reason = Annotated[Text, Field(min_length=1, max_length=MAX_ERASURE_REASON)]
_Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
AuditIds = Annotated[tuple[_Id, ...], Field(max_length=MAX_NAMED_AUDITS)]


class OutputClass(Frozen):
    """Which flagged outputs a rule, a hold or an erasure is about; all that is given must hold. Words are exact."""

    producer: _Word | None = Field(default=None, description="Who flagged it.", examples=["chat-frontend"])
    flag_reason: _Word | None = Field(default=None, description="The producer's reason.", examples=["policy"])
    severity: Severity | None = Field(
        default=None, description="How urgent the producer finds it.", examples=[Severity.LOW]
    )
    model: _Word | None = Field(
        default=None, description="The model revision that answered.", examples=["support-7"]
    )
    channel: _Word | None = Field(default=None, description="How it arrived.", examples=["http"])
    key: _Word | None = Field(
        default=None, description="The idempotency key that its producer gave.", examples=["chat-2026-17"]
    )
    label: Annotated[Text, Field(min_length=3, max_length=2 * MAX_SHORT_CHARS + 1)] | None = Field(
        default=None, description="A label of it, as NAME=VALUE.", examples=["user=u-1234"]
    )
    since: datetime | None = Field(
        default=None, description="Received at or after.", examples=["2026-01-31T00:00:00Z"]
    )
    until: datetime | None = Field(
        default=None, description="Received at or before.", examples=["2026-01-31T23:59:59Z"]
    )

    @model_validator(mode="after")
    def _sayable(self) -> Self:
        if self.label is not None and "=" not in self.label[1:]:
            raise ValueError("label: write NAME=VALUE")
        if self.label is not None and set('"\\') & set(self.label.partition("=")[0]):
            raise ValueError(
                "label: a name with a quotation mark or a backslash cannot be looked for; choose the outputs in another way"
            )
        for moment in (self.since, self.until):
            if moment is not None and moment.tzinfo is None:
                raise ValueError("since, until: give a time with a time zone")
        return self

    @property
    def says_nothing(self) -> bool:
        """Whether it means every output."""
        return not self.model_dump(exclude_none=True)

    def text(self) -> str:
        """What it means, in a line."""
        given = self.model_dump(mode="json", exclude_none=True)
        return ", ".join(f"{name} {value}" for name, value in given.items()) or "every output"


class _Chosen(Frozen):
    """Outputs by their audits, or by a class."""

    audit_ids: AuditIds = Field(default=(), description="Audits of the outputs.", examples=[[17, 18]])
    outputs: OutputClass | None = Field(default=None, description="A class of outputs, in their place.")
    reason: _Reason = Field(description="Why; kept for good, so without personal data.", examples=["case 9"])

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.audit_ids) == (self.outputs is not None):
            raise ValueError("give either audit_ids or outputs")
        if self.outputs is not None and self.outputs.says_nothing:
            raise ValueError("outputs: name at least one condition")
        return self


class ErasureDraft(_Chosen):
    """Outputs whose texts are to be erased."""


class HoldDraft(_Chosen):
    """Outputs that nothing erases until the hold is lifted."""


class LiftRequest(Frozen):
    """Why a hold is lifted."""

    reason: _Reason = Field(description="Why it is lifted.", examples=["case 9 was closed"])


class RetentionDraft(Frozen):
    """How long texts of a class are kept."""

    name: _Word = Field(description="Name of the rule, unique.", examples=["low after a month"])
    outputs: OutputClass = Field(
        default=OutputClass(), description="The class; without conditions, every output.", examples=[{}]
    )
    days: Annotated[int, Field(ge=1, le=MAX_RETENTION_DAYS)] = Field(
        description="Days after an output was received when its text is erased.", examples=[30]
    )


class HoldRecord(Frozen):
    """A legal hold."""

    hold_id: int
    audit_ids: AuditIds
    outputs: OutputClass | None
    reason: str
    placed_by: str
    placed_at: datetime
    lifted_by: str | None
    lifted_at: datetime | None
    lift_reason: str | None


class RetentionRecord(Frozen):
    """A retention rule with what it has done."""

    rule_id: int
    name: str
    outputs: OutputClass
    days: int
    created_by: str
    created_at: datetime
    ended_at: datetime | None
    #: Texts that it erased so far.
    erased: int
    #: When all outputs were last looked at; None before the first look was whole.
    looked_at: datetime | None


class ErasureRecord(Frozen):
    """One erasure: of outputs or of training examples, asked for or by a rule."""

    erasure_id: int
    #: `output` or `example`.
    kind: str
    reason: str
    asked_by: str
    asked_at: datetime
    #: Texts that are gone.
    erased: int
    #: None while it is under way.
    done_at: datetime | None
    #: When files and dead rows of the database were cleaned too; None before.
    cleaned_at: datetime | None
    #: Why nothing was erased; None where it was.
    code: str | None
    refused: str | None
