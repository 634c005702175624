"""The filters of the list of audits: the one list that the API, the page, the client and the command line are made from."""

from datetime import datetime
from typing import Annotated, get_args, get_type_hints

from pydantic import Field

from wherefrom.records.audits import AuditState
from wherefrom.records.flagged import Frozen, Severity, Text

_Word = Annotated[Text, Field(max_length=200)]
_MOMENT_HELP = "A day, or an ISO 8601 time. Without a time zone it is UTC."


class AuditFilter(Frozen):
    """Which audits a list shows; all that is given must hold, None means any. Times are aware.

    Each field's name is the HTTP parameter and the client's argument, its description is the help everywhere, its example is one that the filter takes.
    """

    state: AuditState | None = Field(
        default=None, description="State of the audit.", examples=[AuditState.DONE]
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
        default=None, description="Text that the completion contains.", examples=["refund"]
    )


#: Names of the filters, in the order in which links carry them and lists show them.
FILTER_NAMES = tuple(AuditFilter.model_fields)


def filter_type(name: str) -> type:
    """The type of a filter's value that is given: `str`, `datetime` or an enum."""
    found: type = get_args(get_type_hints(AuditFilter)[name])[0]
    return found


def filter_help(name: str) -> str:
    """What a filter asks for, in a sentence."""
    return AuditFilter.model_fields[name].description or ""
