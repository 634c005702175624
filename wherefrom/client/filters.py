"""What a list of audits can be narrowed to, as the client takes it."""

from datetime import datetime
from typing import TypedDict

from wherefrom.records import AuditState, Judged, Severity, Supported


class AuditFilters(TypedDict, total=False):
    """What a list of audits can be narrowed to; None is the same as leaving the filter out.

    The names, types and meanings are those of `wherefrom.records.AuditFilter`. Enums and times may be given as text; a day such as `2026-01-31` counts whole.
    """

    state: AuditState | str | None
    code: str | None
    flag_reason: str | None
    severity: Severity | str | None
    model: str | None
    bundle: str | None
    source: str | None
    top_source: str | None
    channel: str | None
    since: datetime | str | None
    until: datetime | str | None
    text: str | None
    in_prompt: str | None
    in_output: str | None
    in_cited: str | None
    example: str | None
    verdict: Judged | str | None
    assignee: str | None
    in_queue: str | None
    finding: int | str | None
    support: Supported | str | None
    score_min: float | str | None
    score_max: float | str | None
    confidence_min: float | str | None
    confidence_max: float | str | None
    effect_min: float | str | None
    effect_max: float | str | None
