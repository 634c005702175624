"""The API of the reverse question under `/v1`: culprits of a selection, one source, and search in training texts."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field

from db.access.keys import Scope
from db.reading import blame, culprits, source_facts
from web.errors import documented
from web.filters import FilterQuery, PageQuery
from web.guard.security import needs
from web.json_api.api import READ_REFUSALS, Shared
from wherefrom.errors import NotFound
from wherefrom.records import MAX_CULPRITS, Culprits, FoundExample, Page, SourceDetail
from wherefrom.records.bounds import MAX_SOURCE

router = APIRouter(
    prefix="/v1", tags=["read"], responses=READ_REFUSALS, dependencies=[Depends(needs(Scope.READ))]
)

#: Longest text that is looked for.
MAX_SEARCH = 200


class CulpritQuery(FilterQuery):
    """Which audits, and how many of their culprits."""

    most: int = Field(default=50, ge=1, le=MAX_CULPRITS, description="How many training examples.")
    least_outputs: int = Field(default=1, ge=1, description="Leave out what fewer outputs cite.")


class SearchQuery(PageQuery):
    """What to look for in training texts."""

    text: str = Field(
        min_length=1,
        max_length=MAX_SEARCH,
        description="Words that stand side by side in prompt or answer; the last may be cut short.",
    )
    source: str | None = Field(default=None, max_length=MAX_SOURCE, description="Only this data source.")


@router.get("/culprits")
def board(services: Shared, query: Annotated[CulpritQuery, Query()]) -> Culprits:
    """The training examples that a selection of audits names: each once, strongest first, over its newest 10,000 audits."""
    return culprits.culprits(
        services.database, query.to_filter(), most=query.most, least_outputs=query.least_outputs
    )


@router.get("/source", responses=documented(HTTPStatus.NOT_FOUND))
def source(
    services: Shared, source: Annotated[str, Query(min_length=1, max_length=MAX_SOURCE)]
) -> SourceDetail:
    """One data source: how often it is blamed against its size, when, and by which of its training examples."""
    if "\x00" in source:
        raise NotFound("no training example has this source")
    return source_facts.source_detail(services.database, source)


@router.get("/examples/search")
def search(services: Shared, query: Annotated[SearchQuery, Query()]) -> Page[FoundExample]:
    """Stored training examples in whose text these words stand side by side, whatever their case, the newest first."""
    if "\x00" in query.text + (query.source or ""):
        return Page(items=(), next_cursor=None)
    size = query.size(services.settings.max_page_size)
    return blame.search_examples(
        services.database, query.text, source=query.source, cursor=query.cursor, limit=size
    )
