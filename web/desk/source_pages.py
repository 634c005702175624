"""The pages of the reverse question: sources, one source, one training example, the board of culprits, and search in training texts."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from pydantic import Field

from db.access.keys import Scope
from db.reading import blame, culprits, neighbours, reader, source_facts
from db.remedies import fix_rows
from web.asking.review_forms import filter_words
from web.desk.fix_pages import open_lists
from web.drawing import evidence
from web.drawing.blame_plot import blame_plot
from web.drawing.render import render
from web.filters import AuditPageQuery, CitedByPageQuery, SourcesPageQuery, given_filters, link_query
from web.guard.security import needs
from web.json_api.api import Id, Shared
from wherefrom.records import FixAction, Verdict
from wherefrom.records.blaming import CULPRIT_AUDITS
from wherefrom.records.bounds import MAX_ALIKE, MAX_SOURCE

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Training examples of a board, and of a page of found ones.
BOARD, FOUND = 50, 50
#: A source stands out from this q-value down.
STANDS_OUT = 0.05


class FindQuery(CitedByPageQuery):
    """What to look for among the training examples."""

    example_id: str = Field(default="", max_length=500)
    text: str = Field(default="", max_length=200)
    source: str = Field(default="", max_length=MAX_SOURCE)

    @property
    def usable(self) -> bool:
        """Whether the database can hold what is looked for."""
        return "\x00" not in self.example_id + self.text + self.source


class BoardQuery(AuditPageQuery):
    """The selection whose culprits are shown."""

    least_outputs: int = Field(default=1, ge=1, le=2**31)


@router.get("/examples/{training_example_id}")
def example(
    request: Request, services: Shared, training_example_id: Id, query: Annotated[CitedByPageQuery, Query()]
) -> HTMLResponse:
    """One training example with the flagged outputs that cite it."""
    detail = reader.get_example(services.database, training_example_id)
    size = query.size(services.settings.max_page_size)
    page = reader.cited_by(services.database, training_example_id, cursor=query.cursor, limit=size)
    prompt, completion = map(evidence.plain_segments, (detail.prompt, detail.completion))
    return render(
        "example.html",
        request,
        detail=detail,
        prompt=prompt,
        completion=completion,
        shortened=evidence.is_shortened(prompt, completion),
        page=page,
        first_page=query.cursor is None,
        beside=neighbours.beside_example(services.database, training_example_id),
        most_alike=MAX_ALIKE,
        on_lists=fix_rows.actions_on(services.database, [training_example_id]).get(training_example_id, []),
        lists=open_lists(services),
        actions=list(FixAction),
    )


@router.get("/examples/{training_example_id}/text")
def example_text(services: Shared, training_example_id: Id) -> PlainTextResponse:
    """The whole text of a training example."""
    detail = reader.get_example(services.database, training_example_id)
    return PlainTextResponse("\n\n".join(one for one in (detail.prompt, detail.completion) if one))


@router.get("/examples")
def find_example(request: Request, services: Shared, query: Annotated[FindQuery, Query()]) -> Response:
    """Find training examples by the id of their corpus, where one hit leads straight to its page, or by their text."""
    wanted, text, source = query.example_id.strip(), query.text.strip(), query.source.strip()
    found = list(reader.find_example(services.database, wanted)) if wanted and query.usable else []
    if len(found) == 1 and not text:
        return RedirectResponse(f"/examples/{found[0].training_example_id}", status_code=HTTPStatus.SEE_OTHER)
    page = None
    if text and query.usable:
        page = blame.search_examples(
            services.database, text, source=source or None, cursor=query.cursor, limit=FOUND
        )
    more = {"text": text, "source": source, "cursor": page.next_cursor if page else None}
    return render(
        "find_example.html",
        request,
        wanted=wanted,
        found=found,
        text=text,
        source=source,
        page=page,
        first_page=query.cursor is None,
        more=urlencode({name: value for name, value in more.items() if value}),
        lists=open_lists(services),
        actions=list(FixAction),
    )


@router.get("/sources")
def sources(request: Request, services: Shared, query: Annotated[SourcesPageQuery, Query()]) -> HTMLResponse:
    """Which data sources are cited most, relative to their size."""
    counted = source_facts.known(services.database)
    found = counted or source_facts.SourceFacts((), ())
    views = list(evidence.source_views(found.summaries))
    if query.sort == "source":
        views.sort(key=lambda view: view.record.source)
    elif query.sort != "lift":
        views.sort(key=lambda view: (-getattr(view.record, query.sort), view.record.source))
    top_lift = max((view.lift or 0.0 for view in views), default=0.0)
    return render(
        "sources.html",
        request,
        views=views,
        sort=query.sort,
        top_lift=top_lift,
        tests={one.source: one for one in found.blames},
        stands_out=STANDS_OUT,
        counted=counted is not None,
        as_of=found.as_of,
    )


@router.get("/source")
def source(
    request: Request, services: Shared, source: Annotated[str, Query(max_length=MAX_SOURCE)] = ""
) -> HTMLResponse:
    """One source: its test, its blame over time, its worst training examples, and what people say of it."""
    name = source.replace("\x00", "")
    detail = source_facts.known_detail(services.database, name)
    if detail is None:
        return render("source_counting.html", request, source=name)
    return render(
        "source.html",
        request,
        blame=detail.blame,
        plot=blame_plot(detail.over_time),
        worst=detail.worst,
        verdicts=[(one, detail.verdicts.get(one.value, 0)) for one in Verdict],
        stands_out=STANDS_OUT,
        looked_at=blame.LOOKED_AT,
        as_of=detail.as_of,
        on_lists=fix_rows.actions_on(
            services.database, [one.training_example_id for one in detail.worst.items]
        ),
        lists=open_lists(services),
        actions=list(FixAction),
    )


@router.get("/culprits")
def board(request: Request, services: Shared, query: Annotated[BoardQuery, Query()]) -> HTMLResponse:
    """The training examples that a selection of audits names, each once, strongest first."""
    filters, given = query.to_filter(), given_filters(request)
    found = culprits.culprits(services.database, filters, most=BOARD, least_outputs=query.least_outputs)
    return render(
        "culprits.html",
        request,
        found=found,
        words=filter_words(filters),
        given=given,
        query=link_query(given),
        least_outputs=query.least_outputs,
        most=BOARD,
        looked_at=CULPRIT_AUDITS,
        on_lists=fix_rows.actions_on(services.database, [one.training_example_id for one in found.items]),
        lists=open_lists(services),
        actions=list(FixAction),
    )
