"""What comes in: the flagged-output record v1 and the plain types that all records share.

Frozen pydantic models without behaviour beyond validation.
"""

import hashlib
import json
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticKnownError

from wherefrom.records.bounds import (
    MAX_LABELS,
    MAX_MEMBERS,
    MAX_MESSAGES,
    MAX_SHORT_CHARS,
    MAX_SPANS,
    MAX_TEXT_CHARS,
    MAX_TOKEN_ID,
    MAX_TOKEN_IDS,
    few_fields,
)

#: Version of the flagged-output record that this release reads and writes.
RECORD_SCHEMA: Final = 1


class Frozen(BaseModel):
    """Base of all records: immutable, unknown fields refused, no text without a bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_max_length=MAX_TEXT_CHARS)


def _storable(text: str) -> str:
    """Refuse what no SQL text column holds; control and bidi characters are evidence and stay."""
    if "\x00" in text:
        raise ValueError("contains U+0000 (NUL), which SQL text cannot hold; replace it before flagging")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"contains a lone surrogate at position {error.start}; the text is not valid Unicode"
        ) from error
    return text


def _in_utc(at: datetime) -> datetime:
    """Refuse a time that leaves the calendar when it is told in UTC."""
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from error


Text = Annotated[str, AfterValidator(_storable)]


ShortText = Annotated[str, Field(min_length=1, max_length=MAX_SHORT_CHARS), AfterValidator(_storable)]


def _one_of(kind: type[StrEnum], value: Any) -> Any:
    """Let a text pass. What is none has no place in an enum, and its own refusal would write the value out, however deep it is nested."""
    if isinstance(value, str):
        return value
    *others, last = (f"'{one.value}'" for one in kind)
    raise PydanticKnownError("enum", {"expected": f"{', '.join(others)} or {last}"})


class Role(StrEnum):
    """Who speaks in a message of a chat."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class Turn(BaseModel):
    """One turn of a chat as the chat template gets it: whatever else it carries (`tool_calls`, `name`, ...) is kept."""

    model_config = ConfigDict(frozen=True, extra="allow", str_max_length=MAX_TEXT_CHARS)

    role: str
    content: Text

    def for_template(self) -> dict[str, Any]:
        """The turn as chat templates read it."""
        return {"role": str(self.role), "content": self.content, **(self.model_extra or {})}


class Message(Turn):
    """One turn of a flagged output's prompt: a known role, and nothing beside the content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[Role, BeforeValidator(partial(_one_of, Role))]

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, value: Any) -> Any:
        return few_fields(value)


class Span(Frozen):
    """A range of characters, `start` included, `end` excluded."""

    start: int = Field(ge=0)
    end: int = Field(gt=0)

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, value: Any) -> Any:
        return few_fields(value)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"span end {self.end} must be greater than its start {self.start}")
        return self


class Severity(StrEnum):
    """How urgent the producer finds a flagged output; decides the order of the queue."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


_TokenId = Annotated[int, Field(ge=0, le=MAX_TOKEN_ID)]


class FlaggedRecord(Frozen):
    """A production output sent for review: record v1, the same on the stream, over HTTP and in files."""

    #: Version of this record's shape.
    record_schema: Literal[1] = Field(default=RECORD_SCHEMA, alias="schema")
    #: The caller's key, unique per API key. The same key with the same content is answered, not stored twice.
    idempotency_key: ShortText | None = None
    #: The prompt as plain text; exactly one of `prompt` and `messages` is given.
    prompt: Text | None = None
    #: The prompt as a chat (all turns before the flagged completion).
    messages: Annotated[tuple[Message, ...], Field(max_length=MAX_MESSAGES, fail_fast=True)] | None = None
    #: What the model answered.
    completion: Text = Field(min_length=1)
    #: The completion's own token ids, where the producer has them.
    token_ids: Annotated[tuple[_TokenId, ...], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)] | None = None
    #: The model revision that answered; decides which bundle explains it.
    model: ShortText
    #: Why it was flagged, in the producer's vocabulary.
    reason: Annotated[str, Field(max_length=MAX_SHORT_CHARS), AfterValidator(_storable)] = "unspecified"
    severity: Annotated[Severity, BeforeValidator(partial(_one_of, Severity))] = Severity.MEDIUM
    #: When the model answered (an aware time).
    occurred_at: Annotated[AwareDatetime, AfterValidator(_in_utc)] | None = None
    #: Free metadata of the producer.
    labels: Annotated[dict[ShortText, Text], BeforeValidator(partial(few_fields, most=MAX_LABELS))] = Field(
        default_factory=dict, max_length=MAX_LABELS
    )
    #: Character ranges of the completion to be explained; all of it where none is given.
    spans: Annotated[tuple[Span, ...], Field(max_length=MAX_SPANS, fail_fast=True)] = ()
    #: An answer that would have been acceptable.
    preferred: Text | None = None

    model_config = ConfigDict(populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, value: Any) -> Any:
        return few_fields(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give exactly one of `prompt` and `messages`")
        if self.messages is not None and not self.messages:
            raise ValueError("`messages` is empty; give the turns before the completion")
        if not self.completion.strip():
            raise ValueError("`completion` holds only white space; there is nothing to explain")
        for span in self.spans:
            if span.end > len(self.completion):
                raise ValueError(
                    f"span {span.start}-{span.end} ends after the completion ({len(self.completion)} characters)"
                )
        return self

    def turns(self) -> tuple[Message, ...]:
        """The prompt as messages, whichever way it was given."""
        if self.messages is not None:
            return self.messages
        return (Message(role=Role.USER, content=self.prompt or ""),)

    def content_sha256(self) -> str:
        """Hash of everything but the idempotency key: two records with one key must agree on it."""
        return sha256_of_json(self.model_dump(mode="json", by_alias=True, exclude={"idempotency_key"}))


class OutputGroupRequest(Frozen):
    """Several flagged outputs to be asked about as one question."""

    #: Audits of the outputs, in order.
    audits: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2**63 - 1)], ...], Field(max_length=MAX_MEMBERS, fail_fast=True)
    ] = ()
    #: Further outputs, as records v1: each is flagged by itself first.
    records: Annotated[tuple[FlaggedRecord, ...], Field(max_length=MAX_MEMBERS, fail_fast=True)] = ()
    #: Acceptable answers to such prompts, as records v1; their `model` does not count.
    against: Annotated[tuple[FlaggedRecord, ...], Field(max_length=MAX_MEMBERS, fail_fast=True)] = ()
    #: Shown where an output has the reason that it was flagged for.
    name: ShortText = "group"
    idempotency_key: ShortText | None = None

    @model_validator(mode="before")
    @classmethod
    def _sized(cls, value: Any) -> Any:
        return few_fields(value)

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not 1 <= len(self.audits) + len(self.records) <= MAX_MEMBERS:
            raise ValueError(f"give 1 to {MAX_MEMBERS} outputs in `audits` and `records` together")
        return self


def sha256_of_json(value: Any) -> str:
    """SHA-256 (hex) of a value's canonical JSON: sorted keys, no spaces, UTF-8."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def utc_now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)
