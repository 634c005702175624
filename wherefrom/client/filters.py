"""What a list of audits can be narrowed to, as the client takes it."""

from datetime import datetime
from typing import TypedDict

from wherefrom.records import AuditState, Severity


class AuditFilters(TypedDict, total=False):
    """What a list of audits can be narrowed to; None is the same as leaving the filter out.

    The names, types and meanings are those of `wherefrom.records.AuditFilter`. Enums and times may be given as text; a day such as `2026-01-31` counts whole.
    """

    state: AuditState | str | None
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
