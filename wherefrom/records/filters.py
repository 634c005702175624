"""The filters of the list of audits: the one list that the API, the page, the client and the command line are made from."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, get_args, get_type_hints

from pydantic import Field

from wherefrom.records.audits import AuditState
from wherefrom.records.bounds import MAX_STORED_NAME_CHARS
from wherefrom.records.flagged import Frozen, Severity, Text

_Word = Annotated[Text, Field(max_length=200)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_MOMENT_HELP = (
    "A day, an ISO 8601 time, `today`, or how long ago (`24h`, `7d`). Without a time zone it is UTC."
)
_TEXT_HELP = "Case does not matter; the last word may be cut short."


class Judged(StrEnum):
    """What people found about an audit or any of its citations; only verdicts that stand count."""

    CONFIRMED = "confirmed"
    PLAUSIBLE = "plausible"
    UNRELATED = "unrelated"
    SECOND_LOOK = "second_look"
    #: Any of these.
    ANY = "any"
    #: Nobody has judged it.
    NONE = "none"


class Supported(StrEnum):
    """What the calibration of its bundle says of an audit, within the listing that the other filters give."""

    #: It passes at the false discovery rate of the listing.
    SUPPORTED = "supported"
    #: It was judged and does not pass.
    UNSUPPORTED = "unsupported"
    #: It was answered, and its bundle has no calibration.
    UNCALIBRATED = "uncalibrated"
    #: No influence score stands out.
    WEAK = "weak"


class AuditFilter(Frozen):
    """Which audits a list shows; all that is given must hold, None means any. Times are aware.

    Each field's name is the HTTP parameter and the client's argument, its description is the help everywhere, its example is one that the filter takes.
    """

    state: AuditState | None = Field(
        default=None, description="State of the audit.", examples=[AuditState.DONE]
    )
    code: _Word | None = Field(
        default=None,
        description="Stable code of why it is rejected, abstained or dead, or of its last failure.",
        examples=["out_of_memory"],
    )
    flag_reason: _Word | None = Field(
        default=None, description="The producer's reason, exactly.", examples=["policy"]
    )
    severity: Severity | None = Field(
        default=None, description="How urgent the producer finds it.", examples=[Severity.HIGH]
    )
    model: _Word | None = Field(
        default=None, description="The model revision that answered, exactly.", examples=["support-7"]
    )
    bundle: _Word | None = Field(
        default=None, description="Name of the bundle that explains it, exactly.", examples=["support-7"]
    )
    source: _Word | None = Field(
        default=None,
        description="At least one citation comes from this data source.",
        examples=["vendor-batch-7"],
    )
    top_source: _Word | None = Field(
        default=None,
        description="The first citation comes from this data source.",
        examples=["vendor-batch-7"],
    )
    channel: _Word | None = Field(
        default=None, description="How the output arrived, for example `http` or `stream`.", examples=["http"]
    )
    since: datetime | None = Field(
        default=None, description=f"Received at or after. {_MOMENT_HELP}", examples=["2026-01-31"]
    )
    until: datetime | None = Field(
        default=None,
        description=f"Received at or before; a day includes all of it. {_MOMENT_HELP}",
        examples=["2026-01-31"],
    )
    text: _Word | None = Field(
        default=None,
        description=f"Words that stand in the prompt, the output or a cited training example, in this order. {_TEXT_HELP}",
        examples=["refund"],
    )
    in_prompt: _Word | None = Field(
        default=None, description=f"Words that stand in the prompt. {_TEXT_HELP}", examples=["money back"]
    )
    in_output: _Word | None = Field(
        default=None, description=f"Words that stand in the output. {_TEXT_HELP}", examples=["refund"]
    )
    in_cited: _Word | None = Field(
        default=None,
        description=f"Words that stand in a cited training example. {_TEXT_HELP}",
        examples=["any product"],
    )
    example: Annotated[Text, Field(max_length=MAX_STORED_NAME_CHARS)] | None = Field(
        default=None,
        description="At least one citation is this training example, by its id in the corpus.",
        examples=["vendor-batch-7-0042"],
    )
    verdict: Judged | None = Field(
        default=None,
        description="Somebody found this about the audit or one of its citations; `none`: nobody has judged it.",
        examples=[Judged.CONFIRMED],
    )
    assignee: _Word | None = Field(
        default=None,
        description="Name of somebody who has it in a review queue, or has judged it there.",
        examples=["Ada"],
    )
    in_queue: _Word | None = Field(
        default=None, description="Name of a review queue that it stands in.", examples=["refunds"]
    )
    finding: Annotated[int, Field(ge=1, le=2**63 - 1)] | None = Field(
        default=None,
        description="Number of the finding that its output stands in; one that went into another finds all of that one.",
        examples=[1],
    )
    support: Supported | None = Field(
        default=None,
        description="What the calibration says, judged over all that the other filters find, at the false discovery rate `fdr` (without it, 10 %).",
        examples=[Supported.SUPPORTED],
    )
    score_min: _Number | None = Field(
        default=None, description="The score of the first citation is at least this.", examples=[0.5]
    )
    score_max: _Number | None = Field(
        default=None, description="The score of the first citation is at most this.", examples=[0.9]
    )
    confidence_min: _Number | None = Field(
        default=None, description="The confidence of a citation is at least this, 0 to 1.", examples=[0.5]
    )
    confidence_max: _Number | None = Field(
        default=None,
        description="The confidence of a citation is at most this, 0 to 1; the same citation as for the least confidence.",
        examples=[0.9],
    )
    effect_min: _Number | None = Field(
        default=None,
        description="The effect of a citation is at least this, nats; measured, or predicted where it was not measured.",
        examples=[0.1],
    )
    effect_max: _Number | None = Field(
        default=None,
        description="The effect of a citation is at most this, nats; the same citation as for the least effect.",
        examples=[1.5],
    )


#: Names of the filters, in the order in which links carry them and lists show them.
FILTER_NAMES = tuple(AuditFilter.model_fields)


def filter_type(name: str) -> type:
    """The type of a filter's value that is given: `str`, `int`, `float`, `datetime` or an enum."""
    found: type = get_args(get_type_hints(AuditFilter)[name])[0]
    return found


def filter_help(name: str) -> str:
    """What a filter asks for, in a sentence."""
    return AuditFilter.model_fields[name].description or ""
