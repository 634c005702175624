"""The API of working a review queue off under `/v1`: its people, what is given to whom, what is taken out, one item with all that is needed to judge it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from db.access import people
from db.reading import reader
from db.reviewing import agreement, blind, review_queues, review_work, reviews
from web.asking.review_forms import needs_all, person_id_of
from web.asking.reviewed import given_blind
from web.errors import DESK_REFUSALS
from web.guard.caller import Caller
from web.json_api.api import MAX_ID, Id, Shared
from web.json_api.review_api import Name, Who, judge_of, without_scores
from web.json_body import body_of, documented_body
from web.services import Services
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    PairAgreement,
    PersonProgress,
    PersonRecord,
    QueueItem,
    QueueSummary,
    ReviewRecord,
    ToJudge,
    Verdict,
    WorkItem,
)

router = APIRouter(prefix="/v1", tags=["review"], responses=DESK_REFUSALS)

#: Audits that one request assigns, at most.
MOST_ASSIGNED = 10_000


class PersonRequest(BaseModel):
    """Somebody."""

    person: int = Field(ge=1, le=MAX_ID, description="Number of the person.")


class AssignRequest(PersonRequest):
    """What somebody is given."""

    items: tuple[Annotated[int, Field(ge=1, le=MAX_ID)], ...] = Field(
        default=(), max_length=1000, description="Numbers of items of the queue."
    )
    most: int = Field(
        default=0,
        ge=0,
        le=MOST_ASSIGNED,
        description="In place of numbers: so many of the next items that too few people have.",
    )


class BlindRequest(BaseModel):
    """What somebody finds about a training example of a blind item."""

    verdict: Verdict = Field(description="The verdict.", examples=[Verdict.UNRELATED])


#: Bodies that the OpenAPI document describes.
BODIES: tuple[type[BaseModel], ...] = (PersonRequest, AssignRequest, BlindRequest)


class People(BaseModel):
    """People by name."""

    items: tuple[PersonRecord, ...]


class Progress(BaseModel):
    """How far the people of a queue are."""

    items: tuple[PersonProgress, ...]


class Agreement(BaseModel):
    """Every two people who judged the same, most shared targets first."""

    items: tuple[PairAgreement, ...]


class Assigned(BaseModel):
    """What became of an assignment."""

    assigned: int = Field(description="Items that are new to the person.")


@router.get("/people")
def everybody(services: Shared, caller: Who) -> People:
    """People who can be given audits, by name."""
    needs_all(caller)
    return People(
        items=tuple(
            PersonRecord(
                person_id=one.person_id, name=one.name, created_at=one.created_at, has_key=one.keys > 0
            )
            for one in people.list_people(services.database)
        )
    )


@router.get("/review-queues/{queue_id}/people")
def progress(services: Shared, queue_id: Id, caller: Who) -> Progress:
    """How far each person is with a queue: its members, and everybody who has or had audits of it."""
    needs_all(caller)
    review_queues.get_queue(services.database, queue_id)
    return Progress(items=tuple(review_work.progress(services.database, queue_id)))


@router.post("/review-queues/{queue_id}/people", openapi_extra=documented_body(PersonRequest))
def add_member(
    services: Shared,
    queue_id: Id,
    *,
    caller: Who,
    body: Annotated[PersonRequest, Depends(body_of(PersonRequest))],
) -> Progress:
    """Let somebody take audits of a queue by themselves."""
    needs_all(caller)
    review_queues.get_queue(services.database, queue_id)
    person_id = people.get_person(services.database, body.person).person_id
    review_queues.add_member(services.database, queue_id, person_id, by=person_id_of(caller))
    return progress(services, queue_id, caller)


@router.post("/review-queues/{queue_id}/assign", openapi_extra=documented_body(AssignRequest))
def assign(
    services: Shared,
    queue_id: Id,
    *,
    caller: Who,
    body: Annotated[AssignRequest, Depends(body_of(AssignRequest))],
) -> Assigned:
    """Give somebody items of a queue by their numbers, or the next ones that too few people have."""
    needs_all(caller)
    database, by = services.database, person_id_of(caller)
    review_queues.get_queue(database, queue_id)
    person_id = people.get_person(database, body.person).person_id
    if bool(body.items) == bool(body.most):
        raise InvalidRequest("name items, or say with `most` how many of the next ones; not both")
    if body.items:
        mine = [review_work.get_item(database, queue_id, one).item_id for one in dict.fromkeys(body.items)]
        return Assigned(assigned=review_work.assign(database, mine, person_id, by=by))
    return Assigned(assigned=review_work.assign_open(database, queue_id, person_id, most=body.most, by=by))


@router.post("/review-queues/{queue_id}/fill")
def fill(services: Shared, queue_id: Id, caller: Who) -> QueueSummary:
    """Apply the rule of a queue now."""
    needs_all(caller)
    review_queues.fill(services.database, queue_id)
    return review_queues.get_queue(services.database, queue_id)


@router.post("/review-queues/{queue_id}/close")
def close(services: Shared, queue_id: Id, caller: Who) -> QueueSummary:
    """Let nothing more enter a queue; what is in it can still be judged."""
    needs_all(caller)
    review_queues.get_queue(services.database, queue_id)
    review_queues.close_queue(services.database, queue_id, by=person_id_of(caller))
    return review_queues.get_queue(services.database, queue_id)


@router.get("/review-queues/{queue_id}/items/{item_id}")
def item(services: Shared, queue_id: Id, item_id: Id, *, caller: Who, reviewer: Name = None) -> WorkItem:
    """One audit of a queue with all that is needed to judge it; in a blind queue, nothing that was computed. A reviewer's key suffices for what is theirs."""
    database = services.database
    me = _person(services, caller, reviewer)
    queue = review_queues.get_queue(database, queue_id, person_id=me, sees_all=caller.sees_all)
    found = review_work.get_item(database, queue_id, item_id)
    _may_see(services, caller, found, me)
    if not queue.blind:
        return WorkItem(item=found, detail=reader.get_audit(database, found.audit.audit_id))
    shown, given = blind.blind_item(database, item_id), given_blind(services, item_id, me)
    rows = tuple(
        ToJudge(
            training_example_id=one.training_example_id,
            prompt=one.prompt,
            completion=one.completion,
            mine=None if (mine := given.get(one.training_example_id)) is None else mine.verdict,
        )
        for one in shown.rows
    )
    return WorkItem(
        item=without_scores(found), detail=None, turns=shown.turns, completion=shown.completion, rows=rows
    )


@router.post(
    "/review-queues/{queue_id}/items/{item_id}/blind/{training_example_id}",
    status_code=HTTPStatus.CREATED,
    openapi_extra=documented_body(BlindRequest),
)
def judge_blind(
    services: Shared,
    queue_id: Id,
    item_id: Id,
    *,
    training_example_id: Id,
    caller: Who,
    body: Annotated[BlindRequest, Depends(body_of(BlindRequest))],
    reviewer: Name = None,
) -> ReviewRecord:
    """Judge one training example of a blind item."""
    by = judge_of(services, caller, reviewer)
    found = review_work.get_item(services.database, queue_id, item_id)
    _may_see(services, caller, found, by.person.person_id)
    record = reviews.judge_blind(services.database, item_id, training_example_id, body.verdict, by=by)
    return record.model_copy(update={"rank": None})  # or the ranks of the others could be told


@router.post("/review-queues/{queue_id}/items/{item_id}/remove")
def remove(services: Shared, queue_id: Id, item_id: Id, caller: Who) -> QueueItem:
    """Take an audit out of a queue; neither its rule nor a bulk action brings it back."""
    needs_all(caller)
    review_work.get_item(services.database, queue_id, item_id)
    review_work.remove(services.database, item_id, by=person_id_of(caller))
    return review_work.get_item(services.database, queue_id, item_id)


@router.post("/review-queues/{queue_id}/items/{item_id}/restore")
def restore(services: Shared, queue_id: Id, item_id: Id, caller: Who) -> QueueItem:
    """Put an audit back that was taken out."""
    needs_all(caller)
    review_work.get_item(services.database, queue_id, item_id)
    review_work.restore(services.database, item_id, by=person_id_of(caller))
    return review_work.get_item(services.database, queue_id, item_id)


@router.post(
    "/review-queues/{queue_id}/items/{item_id}/unassign", openapi_extra=documented_body(PersonRequest)
)
def unassign(
    services: Shared,
    queue_id: Id,
    item_id: Id,
    *,
    caller: Who,
    body: Annotated[PersonRequest, Depends(body_of(PersonRequest))],
) -> QueueItem:
    """Take an audit off somebody who has not judged it. Everybody may give back what is theirs."""
    me = person_id_of(caller)
    if body.person != me:
        needs_all(caller)
    review_work.get_item(services.database, queue_id, item_id)
    review_work.unassign(services.database, item_id, body.person, by=me)
    return without_scores(review_work.get_item(services.database, queue_id, item_id))


@router.get("/agreement")
def agreed(
    services: Shared,
    caller: Who,
    queue_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Count only what was judged in this review queue.")
    ] = None,
) -> Agreement:
    """How far every two people agree who judged the same: Cohen's kappa with its 95 % interval, and the audits on which they differ."""
    needs_all(caller)
    if queue_id is not None:
        review_queues.get_queue(services.database, queue_id)
    return Agreement(items=tuple(agreement.pairs(services.database, queue_id)))


def _person(services: Services, caller: Caller, name: str | None) -> int | None:
    """Who asks; nobody where they are not named and no key says it."""
    return person_id_of(caller) if name is None else judge_of(services, caller, name).person.person_id


def _may_see(services: Services, caller: Caller, found: QueueItem, person_id: int | None) -> None:
    """Let those pass who see everything, or to whom the item is open.

    Raises:
        NotFound: it is none of theirs.
    """
    if caller.sees_all:
        return
    if person_id is None or not review_work.may_see(services.database, found.item_id, person_id):
        raise NotFound(f"review queue {found.queue_id} has no item {found.item_id}")
