"""The way through the list that one came from: its filters stand in the address of each audit, so that next and previous follow it. No HTML."""

from dataclasses import dataclass

from fastapi import Request
from pydantic import ValidationError

from db.reading import listings, neighbours
from db.session import Database
from web.asking.review_forms import filter_words
from web.filters import LINK_NAMES, AuditPageQuery, link_query
from wherefrom.records import AuditNeighbours


@dataclass(frozen=True)
class Way:
    """The list that an audit is looked at in."""

    #: Its filters and its order as the query part of a link.
    query: str
    #: Both in words.
    words: str
    beside: AuditNeighbours


def way_of(request: Request, database: Database, audit_id: int) -> Way:
    """The list in the address of an audit's page; all audits where it names none, or filters that no list takes."""
    given = {name: value for name in LINK_NAMES if (value := request.query_params.get(name, "").strip())}
    try:
        asked = AuditPageQuery.model_validate(given)
    except ValidationError:
        given, asked = {}, AuditPageQuery()
    filters = asked.to_filter()
    told = ", ".join(f"{label} {value}" for label, value in filter_words(filters))
    order = asked.order.meaning
    return Way(
        query=link_query(given),
        words=f"{order[0].upper()}{order[1:]}: {told}" if told else f"All audits, {order}",
        beside=neighbours.beside_audit(
            database,
            filters,
            audit_id,
            order=asked.order,
            supported=listings.support_limit(database, filters, asked.fdr),
        ),
    )
