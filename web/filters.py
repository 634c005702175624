"""Query parameters of the lists: parsed, checked, and written back into links.

The API refuses parameters it does not know (a misspelt filter must not return everything); the pages ignore them.
An empty value means "not set", because a form sends its empty fields.
"""

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlencode

from fastapi import Request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from wherefrom.records import FILTER_NAMES, AuditFilter, AuditOrder, filter_type, utc_now
from wherefrom.statistics import DEFAULT_FDR

DEFAULT_PAGE_SIZE = 50

#: What links to the list carry: the filters, at which rate audits are judged, whether only new ones are shown, and the order.
LINK_NAMES = (*FILTER_NAMES, "fdr", "unseen", "sort")

#: How long ago, as a time may be written.
_AGO = re.compile(r"([0-9]{1,4})([hd])")


def no_empty(value: object) -> object:
    """None for an empty value: a form sends its empty fields."""
    return None if isinstance(value, str) and not value.strip() else value


def moment_of(value: object, *, last: bool) -> object:
    """An aware time; a bare day is its first or its last moment in UTC, a time without a zone is in UTC."""
    if not isinstance(value, str) or not value.strip():
        return no_empty(value)
    if ago := _AGO.fullmatch(value.strip()):
        number, unit = int(ago[1]), ago[2]
        return utc_now() - timedelta(hours=number if unit == "h" else 24 * number)
    if value.strip().lower() == "today":
        value = utc_now().date().isoformat()
    # A `+` that was not escaped arrives as a space: 2026-01-31T12:00:00 02:00.
    text = value.strip().replace(" ", "+") if "T" in value else value.strip()
    try:
        moment = datetime.fromisoformat(text)
        if len(text) <= len("2026-01-31"):
            day = datetime.combine(moment.date(), time.min, tzinfo=UTC)
            return day + timedelta(days=1) - timedelta(microseconds=1) if last else day
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            "send a day (2026-01-31), a time (2026-01-31T12:00:00Z), `today`, or how long ago (`24h`, `7d`)"
        ) from error


_Cursor = Annotated[Annotated[str, Field(max_length=500)] | None, BeforeValidator(no_empty)]
_Limit = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(no_empty)]


class PageQuery(BaseModel):
    """Where in a list to read on, and how much."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cursor: _Cursor = Field(default=None, description="`next_cursor` of the page before; opaque.")
    limit: _Limit = Field(
        default=None, description="Items of one page; a larger value is reduced to the service's maximum."
    )

    def size(self, max_page_size: int) -> int:
        """Items of the page to read."""
        return min(self.limit or DEFAULT_PAGE_SIZE, max_page_size)


_RANGES = (
    ("score_min", "score_max"),
    ("confidence_min", "confidence_max"),
    ("effect_min", "effect_max"),
)


class FilterQuery(AuditFilter):
    """The filters of the list of audits as callers write them: days count whole, and empty values are not set."""

    @field_validator(*FILTER_NAMES, mode="before")
    @classmethod
    def _given(cls, value: object, info: ValidationInfo) -> object:
        if filter_type(str(info.field_name)) is datetime:
            return moment_of(value, last=info.field_name == "until")
        return no_empty(value)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.since and self.until and self.until < self.since:
            raise ValueError("`until` is before `since`; no audit can match")
        for least, most in _RANGES:
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and high < low:
                raise ValueError(f"`{most}` is less than `{least}`; no audit can match")
        return self

    def to_filter(self) -> AuditFilter:
        """The filters alone, as the reader takes them."""
        return AuditFilter(**{name: getattr(self, name) for name in FILTER_NAMES})


class AuditQuery(FilterQuery, PageQuery):
    """The filters of the list of audits as parameters, and at which rate the audits are judged."""

    fdr: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, BeforeValidator(no_empty)] = Field(
        default=None,
        description="Judge all audits of the listing at this false discovery rate: `supported` of each, `support` of the listing.",
        examples=[DEFAULT_FDR],
    )
    unseen: Annotated[bool | None, BeforeValidator(no_empty)] = Field(
        default=None,
        description="Only audits received since the last visit of the person who asks to the list; all where nobody has been there.",
        examples=[True],
    )
    sort: Annotated[AuditOrder | None, BeforeValidator(no_empty)] = Field(
        default=None,
        description="The order; without it, newest first. `answered`, `score` and `support` list only audits that have what they sort by.",
        examples=[AuditOrder.SCORE],
    )

    @property
    def order(self) -> AuditOrder:
        """The order of the list."""
        return self.sort or AuditOrder.NEWEST


class AuditPageQuery(AuditQuery):
    """The same for the page: parameters that links pick up elsewhere are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class CitedByPageQuery(PageQuery):
    """Where to read on in the outputs that cite an example, on its page."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class SourcesPageQuery(BaseModel):
    """The order of the page of sources."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    sort: Literal["lift", "citations", "examples", "source"] = "lift"


def link_query(given: dict[str, str], **changes: str | None) -> str:
    """The query part of a link to the list: the filters given, with changes; None takes one out.

    Args:
        given: Filters as they stand in the address, so that a shared link reads as it was typed.
        changes: Parameters to set or to take out.
    """
    merged: dict[str, Any] = {**given, **changes}
    pairs = [(name, merged[name]) for name in (*LINK_NAMES, "cursor", "limit") if merged.get(name)]
    return f"?{urlencode(pairs)}" if pairs else ""


def given_filters(request: Request) -> dict[str, str]:
    """The filters as they stand in the address, so that links keep what was typed."""
    return {name: value for name in LINK_NAMES if (value := request.query_params.get(name, "").strip())}
