"""The API of the desk under `/v1`: review queues, verdicts, and the verdicts of all as JSON lines."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from db.access import people
from db.access.keys import Scope
from db.reviewing import review_queues, review_work, reviews, verdict_export
from db.reviewing.reviews import Reviewer
from web.asking.review_forms import needs_all, person_id_of, reviewer_of
from web.errors import DESK_REFUSALS
from web.filters import FilterQuery
from web.guard.caller import Caller
from web.guard.security import needs
from web.json_api.api import Id, Shared
from web.json_api.export import json_lines
from web.json_body import body_of, documented_body
from web.services import Services
from wherefrom.errors import Forbidden, NotFound
from wherefrom.records import (
    Added,
    ItemState,
    QueueDraft,
    QueueItem,
    QueueSummary,
    ReviewDraft,
    ReviewRecord,
    Via,
)

router = APIRouter(prefix="/v1", tags=["review"], responses=DESK_REFUSALS)

Who = Annotated[Caller, Depends(needs(Scope.REVIEW))]
Name = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=200,
        description="Who judges, where the service asks for no keys. With a key it is the person behind it.",
    ),
]


class QueueRequest(QueueDraft):
    """A review queue to be made; days in its rule count whole."""

    rule: FilterQuery | None = Field(
        default=None,
        description="Audits that enter by themselves once they are answered; without it, audits are put in by hand.",
    )

    def to_draft(self) -> QueueDraft:
        """The queue, with its rule as it is stored."""
        given = {name: getattr(self, name) for name in QueueDraft.model_fields if name != "rule"}
        return QueueDraft(**given, rule=None if self.rule is None else self.rule.to_filter())


class PutRequest(FilterQuery):
    """Which audits go into a queue."""

    assign_to: int | None = Field(
        default=None, ge=1, description="Number of the person who judges what is new."
    )
    dry_run: bool = Field(default=False, description="Only say how many match.")


#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (QueueRequest, PutRequest, ReviewDraft)


class Queues(BaseModel):
    """Review queues."""

    items: tuple[QueueSummary, ...]


class Items(BaseModel):
    """Audits of a queue, in its order."""

    items: tuple[QueueItem, ...]


class Reviews(BaseModel):
    """The history of an audit's reviews, oldest first."""

    items: tuple[ReviewRecord, ...]


def judge_of(services: Services, caller: Caller, name: str | None) -> Reviewer:
    """Who judges: the person behind the key, or a name that is given where no key is asked for.

    Raises:
        Forbidden: the name is not that of the person behind the key, or a key was made for it.
        PersonNeeded: nobody is named and nobody stands behind the key.
    """
    if name is None or (caller.person is not None and caller.person.name == name):
        return reviewer_of(caller)
    if caller.proven:
        raise Forbidden("with an API key, the person behind it judges; leave `reviewer` out")
    return Reviewer(people.choose_local(services.database, name).ref, Via.LOCAL)


@router.get("/review-queues")
def queues(services: Shared, caller: Who) -> Queues:
    """The review queues that the caller may see, with what they hold."""
    return Queues(
        items=tuple(
            review_queues.list_queues(
                services.database, person_id=person_id_of(caller), sees_all=caller.sees_all
            )
        )
    )


@router.post("/review-queues", status_code=HTTPStatus.CREATED, openapi_extra=documented_body(QueueRequest))
def create(
    services: Shared, caller: Who, body: Annotated[QueueRequest, Depends(body_of(QueueRequest))]
) -> QueueSummary:
    """Make a review queue, and let in what matches its rule now."""
    needs_all(caller)
    queue_id = review_queues.create_queue(services.database, body.to_draft(), created_by=person_id_of(caller))
    review_queues.fill(services.database, queue_id)
    return review_queues.get_queue(services.database, queue_id)


@router.get("/review-queues/{queue_id}/items")
def items(
    services: Shared,
    queue_id: Id,
    *,
    caller: Who,
    state: ItemState = ItemState.OPEN,
    after: Annotated[
        int | None, Query(ge=1, le=2**63 - 1, description="`item_id` of the last item of the page before.")
    ] = None,
) -> Items:
    """Audits of a review queue in its order, up to the service's page size."""
    needs_all(caller)
    review_queues.get_queue(services.database, queue_id)
    place = None if after is None else review_work.position(services.database, after)
    found = review_work.list_items(
        services.database, queue_id, state=state, after=place, limit=services.settings.max_page_size
    )
    return Items(items=tuple(found))


@router.post("/review-queues/{queue_id}/audits", openapi_extra=documented_body(PutRequest))
def put_in(
    services: Shared,
    queue_id: Id,
    *,
    caller: Who,
    body: Annotated[PutRequest, Depends(body_of(PutRequest))],
) -> Added:
    """Put every audit of a filter into a queue, not only those of a page; `dry_run` says how many match."""
    needs_all(caller)
    review_queues.get_queue(services.database, queue_id)
    if body.assign_to is not None:
        people.get_person(services.database, body.assign_to)
    if body.dry_run:
        return Added(matched=review_queues.preview(services.database, body.to_filter(), most=2**31), added=0)
    return review_queues.put_in(
        services.database, queue_id, body.to_filter(), by=person_id_of(caller), assign_to=body.assign_to
    )


@router.post("/review-queues/{queue_id}/next")
def take_next(services: Shared, queue_id: Id, *, caller: Who, reviewer: Name = None) -> Items:
    """Take the next audit of a queue; an empty list where nothing is left for the caller. Of a blind queue, nothing that was computed is told."""
    me = judge_of(services, caller, reviewer).person.person_id
    queue = review_queues.get_queue(services.database, queue_id, person_id=me, sees_all=caller.sees_all)
    item_id = review_work.take_next(services.database, queue_id, me, members_only=not caller.sees_all)
    if item_id is None:
        return Items(items=())
    found = review_work.get_item(services.database, queue_id, item_id)
    return Items(items=(without_scores(found) if queue.blind else found,))


def without_scores(found: QueueItem) -> QueueItem:
    """An item as it may be shown to somebody who judges it blind."""
    hidden = dict.fromkeys(("top_source", "top_score", "weak", "conformal_p", "novelty_p", "supported"))
    return found.model_copy(update={"audit": found.audit.model_copy(update=hidden)})


@router.get("/audits/{audit_id}/reviews")
def history(services: Shared, audit_id: Id, caller: Who) -> Reviews:
    """What people found about an audit and its citations: every entry, with what stands now marked."""
    needs_all(caller)
    return Reviews(items=reviews.reviews_of(services.database, audit_id))


@router.post(
    "/audits/{audit_id}/reviews",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented_body(ReviewDraft),
)
def judge(
    services: Shared,
    audit_id: Id,
    *,
    caller: Who,
    body: Annotated[ReviewDraft, Depends(body_of(ReviewDraft))],
    reviewer: Name = None,
) -> ReviewRecord:
    """Give a verdict on an audit or a citation, or comment on it."""
    by = judge_of(services, caller, reviewer)
    if not caller.sees_all and not review_work.sees_audit(services.database, audit_id, by.person.person_id):
        raise NotFound(f"audit {audit_id} does not exist")
    return reviews.judge(services.database, audit_id, body, by=by)


@router.post("/reviews/{review_id}/undo")
def undo(services: Shared, review_id: Id, *, caller: Who, reviewer: Name = None) -> ReviewRecord:
    """Take an entry of one's own back; nothing is deleted."""
    return reviews.undo(services.database, review_id, by=judge_of(services, caller, reviewer))


@router.get(
    "/verdicts.jsonl",
    response_class=StreamingResponse,
    responses={200: {"description": "One output per line.", "content": {"application/x-ndjson": {}}}},
)
def verdicts(services: Shared, caller: Who) -> StreamingResponse:
    """Every output with blind verdicts that stand, one JSON object per line; `wherefrom calibrate --verdicts` reads it."""
    needs_all(caller)
    return json_lines(verdict_export.judged_outputs(services.database))
