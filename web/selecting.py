"""From the parameters of a list to what the reader takes: what they mean for whoever asks, and what the listing says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from pydantic import ValidationError

from db.reading import listings, reader, support, visits
from web.filters import AuditPageQuery, AuditQuery
from web.guard.caller import Caller
from web.services import Services
from wherefrom.records import AuditFilter, AuditListing, ListingFacts
from wherefrom.records.explain import explain_details


@dataclass(frozen=True)
class Selected:
    """The filters of a list as whoever asks means them."""

    filters: AuditFilter
    #: Largest conformal p that is supported; only the filter `support` asks for it.
    supported: float | None


def selected(services: Services, query: AuditQuery, caller: Caller) -> Selected:
    """What the parameters of a list select for somebody."""
    filters = query.to_filter()
    if query.unseen and caller.person is not None:
        since = visits.last_visit(services.database, caller.person.person_id)
        if since is not None and (filters.since is None or filters.since < since):
            filters = filters.model_copy(update={"since": since})
    return Selected(filters, listings.support_limit(services.database, filters, query.fdr))


def listing(services: Services, query: AuditQuery, caller: Caller) -> AuditListing:
    """One page of the list, judged where the query asks for it."""
    found = selected(services, query, caller)
    facts = None
    if query.fdr is not None:
        facts = listings.facts(services.database, found.filters, level=query.fdr)
    return listing_of(services, query, found, facts)


def listing_of(
    services: Services, query: AuditQuery, found: Selected, facts: ListingFacts | None
) -> AuditListing:
    """One page of what is selected; `facts` has what was judged over all of it."""
    page = reader.list_audits(
        services.database,
        found.filters,
        order=query.order,
        cursor=query.cursor,
        limit=query.size(services.settings.max_page_size),
        supported=found.supported,
    )
    if query.fdr is None or facts is None or facts.support is None:
        return AuditListing(items=page.items, next_cursor=page.next_cursor)
    marked = support.marked(page.items, facts.support)
    return AuditListing(items=marked, next_cursor=page.next_cursor, support=facts.support)


@dataclass(frozen=True)
class Asked:
    """The parameters of a page of audits; where some cannot be used, which and why."""

    #: None where a parameter is wrong: a misspelt filter must not find everything.
    query: AuditPageQuery | None
    #: By the name of the field; those about several stand under the empty name.
    problems: Mapping[str, str] = field(default_factory=dict)


async def asked_for(request: Request) -> Asked:
    """The parameters of a page, checked one by one, so that the form can show what was typed beside what is wrong with it.

    Asynchronous, though it waits for nothing: see `services_of`.
    """
    given = dict(request.query_params)
    try:
        return Asked(AuditPageQuery.model_validate(given))
    except ValidationError as error:
        told: dict[str, str] = {}
        for problem in explain_details(error.errors(), skip=frozenset()):
            told.setdefault((problem.field or "").partition(".")[0].partition("[")[0], problem.message)
        return Asked(None, told)


AskedFor = Annotated[Asked, Depends(asked_for)]
