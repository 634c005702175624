"""Turns claimed audits into what an engine works on."""

from wherefrom.attribution.interface import Attributor, GroupAttributor, PreparedQuery
from wherefrom.errors import GroupsUnsupported
from wherefrom.records import ClaimedAudit, ClaimedOutputGroup, Query, QueryGroup
from wherefrom.settings import Settings


def prepare_audit(audit: ClaimedAudit, *, attributor: Attributor, settings: Settings) -> PreparedQuery:
    """The audit's output, or those of its group, as tokens.

    Raises:
        GroupsUnsupported: the engine answers for single outputs alone.
        PermanentError: as of `Attributor.prepare`.
    """
    key, max_tokens, over_long = str(audit.audit_id), settings.max_tokens, settings.over_long
    if not isinstance(audit, ClaimedOutputGroup):
        important = audit.record.severity in settings.full_tier()
        query = Query.from_record(key, audit.record, important=important)
        return attributor.prepare(query, max_tokens=max_tokens, over_long=over_long)
    if not isinstance(attributor, GroupAttributor):
        raise GroupsUnsupported(
            f"the engine of bundle {attributor.bundle_name} answers for single outputs only"
        )
    group = QueryGroup(
        key=key,
        members=tuple(
            Query.from_record(f"output {place}", one) for place, one in enumerate(audit.members, start=1)
        ),
        against=tuple(
            Query.from_record(f"acceptable answer {place}", one)
            for place, one in enumerate(audit.against, start=1)
        ),
    )
    return attributor.prepare_group(group, max_tokens=max_tokens, over_long=over_long)
