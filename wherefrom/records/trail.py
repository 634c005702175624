"""The trail as it is read: events, and the filters of their list."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from wherefrom.records.bounds import Details
from wherefrom.records.flagged import Frozen, Text

_Word = Annotated[Text, Field(max_length=200)]


class TrailFilter(Frozen):
    """Which events a list shows; all that is given must hold, None means any. Times are aware."""

    kind: _Word | None = Field(
        default=None, description="What happened, exactly, for example `text.read`.", examples=["text.read"]
    )
    subject: _Word | None = Field(
        default=None,
        description="To what it happened, exactly: `audit:7`, `flagged_output:12`, `api_key:PREFIX`; `audits` for lists.",
        examples=["audit:7"],
    )
    actor: _Word | None = Field(
        default=None,
        description="Who did it, exactly: `person:3`, `api_key:PREFIX`, `local`, `operator` or `service`.",
        examples=["person:3"],
    )
    since: datetime | None = Field(
        default=None,
        description="At or after: a day, an ISO 8601 time, `today`, or how long ago (`24h`, `7d`).",
        examples=["2026-01-31"],
    )
    until: datetime | None = Field(
        default=None, description="At or before; a day includes all of it.", examples=["2026-01-31"]
    )


class TrailRecord(Frozen):
    """One event of the trail: ids, codes and digests, no texts."""

    event_id: int
    at: datetime
    kind: str
    #: `table:id` of what it happened to; `audits` for a list.
    subject: str
    #: Who did it, by id; None where an older release wrote it.
    actor: str | None
    payload: Details
    #: Place in the chain, from 1 on; None until it is sealed.
    sequence: int | None
    #: Digest that stands for the trail up to here.
    row_hash: str | None
