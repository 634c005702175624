"""The pages of fix lists: all of them, one, and putting rows on one from wherever they are seen."""

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from db.access import people
from db.access.keys import Scope
from db.remedies import fix_lists, fix_rows, what_ifs
from db.remedies.fix_lists import NamedList
from db.reviewing.reviews import Reviewer
from web.asking.forms import Form, form_of, local_path
from web.asking.review_forms import checked, filter_of, filter_query, filter_words, needs_all, reviewer_of
from web.drawing import evidence
from web.drawing.render import render
from web.filters import AuditPageQuery, given_filters
from web.guard.security import needs
from web.json_api.api import Id, Shared
from web.services import Services
from wherefrom.errors import InvalidRequest
from wherefrom.records import MAX_REASON, AuditFilter, FixAction, FixChange, FixListDraft
from wherefrom.records.bounds import MAX_SOURCE

router = APIRouter(prefix="/fix-lists", include_in_schema=False, dependencies=[Depends(needs(Scope.READ))])

#: Rows of a page of a list.
ROWS = 50
#: Characters of a training text in a list.
EXCERPT_CHARS = 400
#: Culprits that the form offers.
MOST_OFFERED = 20
#: What the field `list` says where a new one is to be made.
NEW = "new"

Sent = Annotated[Form, Depends(form_of(Scope.REVIEW))]


class RowsQuery(BaseModel):
    """Which rows of a list to show, and behind which one."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    action: FixAction | None = None
    after: int = Field(default=0, ge=0, le=2**63 - 1)


def open_lists(services: Services) -> list[NamedList]:
    """Lists that can be changed, the newest first; forms offer them."""
    return [one for one in fix_lists.named_lists(services.database) if one.is_open]


def _see_other(where: str) -> Response:
    return RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER)


@router.get("")
def lists(request: Request, services: Shared) -> HTMLResponse:
    """All fix lists."""
    return render("fix_lists.html", request, lists=fix_lists.list_lists(services.database))


@router.post("")
def create(services: Shared, form: Sent) -> Response:
    """Make a fix list."""
    needs_all(form.caller)
    return _see_other(f"/fix-lists/{_make(services, form, reviewer_of(form.caller))}")


@router.get("/put")
def put(request: Request, services: Shared, query: Annotated[AuditPageQuery, Query()]) -> HTMLResponse:
    """What would go on a list: all of a source, or the culprits of a filter; with how many there are, before anything happens."""
    source = request.query_params.get("whole_source", "").strip() or None
    filters = query.to_filter()
    change = checked(FixChange, {"source": source} if source else {"culprits": filters, "most": MOST_OFFERED})
    return render(
        "fix_put.html",
        request,
        source=source,
        given=given_filters(request),
        words=filter_words(filters),
        back=_back_link(source, filters),
        matching=fix_rows.preview(services.database, change),
        most=MOST_OFFERED,
        lists=open_lists(services),
        actions=list(FixAction),
    )


@router.post("/rows")
def put_rows(services: Shared, form: Sent) -> Response:
    """Put rows on a list that the form names, or on a new one."""
    needs_all(form.caller)
    by, change = reviewer_of(form.caller), _change_of(form)
    # Who types a name means it, whatever list stands beside it.
    is_new = form.text("list") in {"", NEW} or form.has("name")
    list_id = _make(services, form, by) if is_new else form.number("list") or 0
    done = fix_rows.change_rows(services.database, list_id, change, by=by)
    back = form.text("back", most=2000)
    if back:
        return _see_other(local_path(back))
    told = urlencode({"matched": done.matched, "changed": done.changed})
    return _see_other(f"/fix-lists/{list_id}?{told}")


@router.get("/{list_id}")
def one_list(
    request: Request, services: Shared, list_id: Id, query: Annotated[RowsQuery, Query()]
) -> HTMLResponse:
    """One fix list: its rows, who owns it, and what happened to it."""
    database = services.database
    found = fix_lists.get_list(database, list_id)
    counted = fix_rows.COUNTED_OUTPUTS
    rows = fix_rows.rows_of(
        database, list_id, action=query.action, after=query.after, limit=ROWS + 1, counted=counted
    )
    return render(
        "fix_list.html",
        request,
        fix_list=found,
        rows=[(one, _line(one.prompt), _line(one.completion)) for one in rows[:ROWS]],
        more=len(rows) > ROWS,
        counted=counted,
        action=query.action,
        first_page=query.after == 0,
        actions=list(FixAction),
        history=[(one, filter_words(_filter(one.culprits))) for one in fix_lists.history(database, list_id)],
        people=people.list_people(database),
        what_ifs=what_ifs.of_list(database, list_id),
        told={name: request.query_params.get(name, "") for name in ("matched", "changed")},
    )


@router.post("/{list_id}/rows")
def change_rows(services: Shared, list_id: Id, form: Sent) -> Response:
    """Change ticked rows, or take them off."""
    needs_all(form.caller)
    done = fix_rows.change_rows(services.database, list_id, _change_of(form), by=reviewer_of(form.caller))
    return _see_other(f"/fix-lists/{list_id}?{urlencode({'matched': done.matched, 'changed': done.changed})}")


@router.post("/{list_id}/owner")
def give(services: Shared, list_id: Id, form: Sent) -> Response:
    """Give a list to another owner."""
    needs_all(form.caller)
    owner = people.get_person(services.database, form.number("person") or 0).person_id
    fix_lists.give_list(services.database, list_id, owner, by=reviewer_of(form.caller))
    return _see_other(f"/fix-lists/{list_id}#history")


@router.post("/{list_id}/close")
def close(services: Shared, list_id: Id, form: Sent) -> Response:
    """Let nothing on a list change any more."""
    needs_all(form.caller)
    fix_lists.close_list(services.database, list_id, by=reviewer_of(form.caller))
    return _see_other(f"/fix-lists/{list_id}")


def _make(services: Services, form: Form, by: Reviewer) -> int:
    given = {"name": form.text("name"), "note": form.text("note", most=MAX_REASON)}
    draft = checked(FixListDraft, given)
    return fix_lists.create_list(services.database, draft, by=by)


def _change_of(form: Form) -> FixChange:
    """The change that a form describes: ticked rows, all of a source, or the culprits of a filter.

    Raises:
        InvalidRequest: nothing is ticked, or a value cannot be used.
    """
    ticked = form.ticked("row")
    source, by_filter = form.text("whole_source", most=MAX_SOURCE), form.has("by_filter")
    if not (ticked or source or by_filter):
        raise InvalidRequest("tick at least one training example")
    action = form.text("action")
    given = {
        "action": None if action == "off" else action or FixAction.REMOVE,
        "reason": form.text("reason", most=MAX_REASON),
        "training_example_ids": ticked,
        "source": source or None,
        "culprits": filter_of(form) if by_filter else None,
        "most": form.number("most") or MOST_OFFERED,
        "least_outputs": form.number("least_outputs") or 1,
    }
    return checked(FixChange, given)


def _filter(given: dict[str, object] | None) -> AuditFilter | None:
    return None if given is None else AuditFilter.model_validate(given)


def _back_link(source: str | None, filters: AuditFilter) -> str:
    if source is not None:
        return f"/source?{urlencode({'source': source})}"
    return f"/culprits{filter_query(filters)}"


def _line(text: str) -> tuple[evidence.Segment, ...]:
    left_out = max(0, len(text) - EXCERPT_CHARS)
    return (evidence.Segment(text[:EXCERPT_CHARS], marked=False, left_out=left_out),) if text else ()
