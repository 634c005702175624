"""The API of fix lists under `/v1`: lists, their rows and history, and the rows as a file for whoever retrains."""

import json
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from db.access import people
from db.access.keys import Scope
from db.remedies import fix_lists, fix_rows, what_ifs
from web.asking.measuring import MOST_MEASURED, measure_list
from web.asking.review_forms import needs_all
from web.errors import DESK_REFUSALS, documented
from web.filters import FilterQuery
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import MAX_ID, Id, Shared
from web.json_api.export import file_answer, json_lines
from web.json_api.review_api import Name, Who, judge_of
from web.json_body import body_of, documented_body
from wherefrom.records import (
    GROUP_WARNING,
    MAX_OUTPUTS,
    FixAction,
    FixChange,
    FixChanged,
    FixEntry,
    FixListDraft,
    FixListSummary,
    FixRow,
    GroupMeasurementRecord,
    WhatIfOutput,
    WhatIfRecord,
)

router = APIRouter(
    prefix="/v1", tags=["fix"], responses=DESK_REFUSALS, dependencies=[Depends(needs(Scope.READ))]
)

#: What a cleaned corpus out of the database lacks, in a header.
CLEANED_NOTE = (
    "rows as the database keeps them; `wherefrom fix-list-clean` keeps the shape of the corpus's own file"
)


class FixRequest(FixChange):
    """Rows that go on a fix list, change there, or leave it; days in the filter count whole."""

    culprits: FilterQuery | None = Field(
        default=None, description="The culprits of the audits that pass this filter, strongest first."
    )
    dry_run: bool = Field(default=False, description="Only say how many training examples it names.")

    def to_change(self) -> FixChange:
        """The change, with its filter as it is stored."""
        given = {name: getattr(self, name) for name in FixChange.model_fields if name != "culprits"}
        return FixChange(**given, culprits=None if self.culprits is None else self.culprits.to_filter())


class GiveRequest(BaseModel):
    """Who a fix list goes to."""

    owner: int = Field(ge=1, le=2**63 - 1, description="Number of the person.")


class WhatIfRequest(FilterQuery):
    """The outputs that a what-if is about: the newest answered ones that pass the filters."""

    most: int = Field(default=200, ge=1, le=MAX_OUTPUTS, description="How many outputs at most.")


class MeasureListRequest(BaseModel):
    """On which outputs a whole list is measured."""

    audits: tuple[Annotated[int, Field(ge=1, le=MAX_ID)], ...] = Field(
        min_length=1,
        max_length=MOST_MEASURED,
        description="Numbers of audits, of outputs of the what-if.",
    )


#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (
    FixListDraft,
    FixRequest,
    GiveRequest,
    WhatIfRequest,
    MeasureListRequest,
)


class FixLists(BaseModel):
    """Fix lists."""

    items: tuple[FixListSummary, ...]


class FixRows(BaseModel):
    """Rows of a fix list."""

    items: tuple[FixRow, ...]


class FixHistory(BaseModel):
    """The newest entries of a list's history, newest first."""

    items: tuple[FixEntry, ...]


class WhatIfs(BaseModel):
    """What-ifs, newest first."""

    items: tuple[WhatIfRecord, ...]


class Measured(BaseModel):
    """Measurements of a whole list, one for each output."""

    items: tuple[GroupMeasurementRecord, ...]


class WhatIfOutputs(BaseModel):
    """The outputs of a what-if, the highest score above chance first."""

    items: tuple[WhatIfOutput, ...]
    warning: str = GROUP_WARNING


@router.get("/fix-lists")
def lists(services: Shared) -> FixLists:
    """All fix lists with what they hold, open ones first."""
    return FixLists(items=tuple(fix_lists.list_lists(services.database)))


@router.post("/fix-lists", status_code=HTTPStatus.CREATED, openapi_extra=documented_body(FixListDraft))
def create(
    services: Shared,
    *,
    caller: Who,
    body: Annotated[FixListDraft, Depends(body_of(FixListDraft))],
    reviewer: Name = None,
) -> FixListSummary:
    """Make a fix list; it belongs to whoever makes it."""
    needs_all(caller)
    list_id = fix_lists.create_list(services.database, body, by=judge_of(services, caller, reviewer))
    return fix_lists.get_list(services.database, list_id)


@router.get("/fix-lists/{list_id}")
def one_list(services: Shared, list_id: Id) -> FixListSummary:
    """One fix list."""
    return fix_lists.get_list(services.database, list_id)


@router.get("/fix-lists/{list_id}/rows")
def rows(
    services: Shared,
    list_id: Id,
    *,
    action: FixAction | None = None,
    after: Annotated[
        int,
        Query(ge=0, le=2**63 - 1, description="`training_example_id` of the last row of the page before."),
    ] = 0,
) -> FixRows:
    """Rows of a fix list by the number of the training example, up to the service's page size."""
    fix_lists.get_list(services.database, list_id)
    size = services.settings.max_page_size
    return FixRows(
        items=tuple(fix_rows.rows_of(services.database, list_id, action=action, after=after, limit=size))
    )


@router.post("/fix-lists/{list_id}/rows", openapi_extra=documented_body(FixRequest))
def change(
    services: Shared,
    list_id: Id,
    *,
    caller: Who,
    body: Annotated[FixRequest, Depends(body_of(FixRequest))],
    reviewer: Name = None,
) -> FixChanged:
    """Put training examples on a list, change what was decided, or take them off; `dry_run` says how many there are."""
    needs_all(caller)
    fix_lists.get_list(services.database, list_id)
    wanted = body.to_change()
    if body.dry_run:
        return FixChanged(matched=fix_rows.preview(services.database, wanted), changed=0)
    return fix_rows.change_rows(services.database, list_id, wanted, by=judge_of(services, caller, reviewer))


@router.post("/fix-lists/{list_id}/owner", openapi_extra=documented_body(GiveRequest))
def give(
    services: Shared,
    list_id: Id,
    *,
    caller: Who,
    body: Annotated[GiveRequest, Depends(body_of(GiveRequest))],
    reviewer: Name = None,
) -> FixListSummary:
    """Give a fix list to another owner."""
    needs_all(caller)
    owner = people.get_person(services.database, body.owner).person_id
    fix_lists.give_list(services.database, list_id, owner, by=judge_of(services, caller, reviewer))
    return fix_lists.get_list(services.database, list_id)


@router.post("/fix-lists/{list_id}/close")
def close(services: Shared, list_id: Id, *, caller: Who, reviewer: Name = None) -> FixListSummary:
    """Let nothing on a fix list change any more."""
    needs_all(caller)
    fix_lists.close_list(services.database, list_id, by=judge_of(services, caller, reviewer))
    return fix_lists.get_list(services.database, list_id)


@router.get("/fix-lists/{list_id}/history")
def history(services: Shared, list_id: Id) -> FixHistory:
    """Who put what on a fix list, when and why; the newest 200 entries."""
    fix_lists.get_list(services.database, list_id)
    return FixHistory(items=tuple(fix_lists.history(services.database, list_id)))


@router.get(
    "/fix-lists/{list_id}/rows.jsonl",
    response_class=StreamingResponse,
    responses={
        200: {"description": "One training example per line.", "content": {"application/x-ndjson": {}}}
    },
)
def rows_jsonl(
    services: Shared,
    list_id: Id,
    *,
    action: FixAction | None = None,
) -> StreamingResponse:
    """Every row of a fix list, one JSON object per line, each training example once. The trail notes who took it."""
    found = fix_lists.get_list(services.database, list_id)
    number = found.rows if action is None else getattr(found, action.value)
    fix_lists.note_export(services.database, list_id, rows=number, what="rows")
    rows = fix_rows.all_rows(services.database, list_id, action=action)
    return json_lines(rows, name=f"fix-list-{list_id}.jsonl")


@router.get(
    "/fix-lists/{list_id}/cleaned.jsonl",
    response_class=StreamingResponse,
    responses={
        200: {"description": "One row per line.", "content": {"application/x-ndjson": {}}},
        **documented(HTTPStatus.UNPROCESSABLE_ENTITY),
    },
)
def cleaned_jsonl(
    services: Shared,
    list_id: Id,
    *,
    corpus: Annotated[
        str | None,
        Query(max_length=64, description="`corpus_sha256`, where the rows of the list are of several."),
    ] = None,
) -> StreamingResponse:
    """The stored corpus without the rows to remove and to fix: `id`, `source`, `prompt`, `completion`, and the row's other fields. The trail notes who took it.

    It is streamed, with no bound on its rows. But of a corpus of more than 50,000 rows the database keeps only those that were cited (422), and of no corpus the shape of its
    file, such as conversations of several turns. `wherefrom fix-list-clean` reads the file itself, of any size, and keeps the shape; the header `Wherefrom-Note` says so.
    """
    fix_lists.get_list(services.database, list_id)
    corpus_id = fix_rows.stored_corpus(services.database, list_id, corpus)
    fix_lists.note_export(services.database, list_id, rows=0, what="cleaned")
    lines = (
        json.dumps(row, ensure_ascii=False) + "\n"
        for row in fix_rows.staying(services.database, list_id, corpus_id)
    )
    answer = file_answer(lines, name=f"cleaned-{list_id}.jsonl", media_type="application/x-ndjson")
    answer.headers["Wherefrom-Note"] = CLEANED_NOTE
    return answer


@router.post(
    "/fix-lists/{list_id}/what-ifs",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=documented_body(WhatIfRequest),
)
def ask_what_if(
    services: Shared,
    list_id: Id,
    *,
    caller: Annotated[Caller, Depends(needs(Scope.MEASURE))],
    body: Annotated[WhatIfRequest, Depends(body_of(WhatIfRequest))],
) -> WhatIfs:
    """Ask what leaving out the rows to remove and to fix would do to outputs; a worker scores every row against every output by the exact tier.

    Answers at once, with one what-if per bundle that answered these outputs. It is a prediction: the effects of the rows are added.
    """
    found = what_ifs.ask(services.database, list_id, body.to_filter(), most=body.most, by=caller.name)
    services.notify([what_ifs.bundle_of(services.database, one.what_if_id) for one in found])
    return WhatIfs(items=tuple(found))


@router.get("/fix-lists/{list_id}/what-ifs")
def what_ifs_of(services: Shared, list_id: Id) -> WhatIfs:
    """The newest what-ifs of a fix list."""
    fix_lists.get_list(services.database, list_id)
    return WhatIfs(items=tuple(what_ifs.of_list(services.database, list_id)))


@router.get("/what-ifs/{what_if_id}")
def what_if(services: Shared, what_if_id: Id) -> WhatIfRecord:
    """One what-if, where it stands."""
    return what_ifs.get_what_if(services.database, what_if_id)


@router.get("/what-ifs/{what_if_id}/outputs")
def what_if_outputs(services: Shared, what_if_id: Id) -> WhatIfOutputs:
    """The outputs of a what-if with their scores, the highest above chance first; those that are not scored yet come last."""
    what_ifs.get_what_if(services.database, what_if_id)
    return WhatIfOutputs(items=tuple(what_ifs.outputs_of(services.database, what_if_id)))


@router.post(
    "/what-ifs/{what_if_id}/measure",
    status_code=HTTPStatus.ACCEPTED,
    openapi_extra=documented_body(MeasureListRequest),
)
def measure_whole_list(
    services: Shared,
    what_if_id: Id,
    *,
    caller: Annotated[Caller, Depends(needs(Scope.MEASURE))],
    body: Annotated[MeasureListRequest, Depends(body_of(MeasureListRequest))],
) -> Measured:
    """Have the whole list of a what-if measured on some of its outputs: the measurer trains without it, beside groups of like rows. The trainings serve all outputs.

    Answers at once with one measurement for each output; `GET /v1/group-measurements/{id}` tells where it stands. A repeated request returns the same.
    """
    return Measured(items=tuple(measure_list(services, what_if_id, body.audits, caller=caller)))
