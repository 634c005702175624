"""What the forms of verdicts do: give one, comment, take one back, judge blind."""

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import Response
from pydantic import TypeAdapter, ValidationError

from db.access.keys import Scope
from db.reviewing import review_work, reviews
from web.asking.forms import Form, form_of
from web.asking.review_forms import back_to, review_of, reviewer_of
from web.desk.review_pages import see_other
from web.guard.caller import Caller
from web.json_api.api import Id, Shared
from web.services import Services
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import Verdict

router = APIRouter(include_in_schema=False)

Sent = Annotated[Form, Depends(form_of(Scope.REVIEW))]
_VERDICT: TypeAdapter[Verdict] = TypeAdapter(Verdict)


def may_judge(services: Services, audit_id: int, caller: Caller) -> None:
    """Let those pass who may see an audit.

    Raises:
        NotFound: it stands in none of the caller's queues and assignments.
        PersonNeeded: nobody stands behind the request.
    """
    person = reviewer_of(caller).person
    if not caller.sees_all and not review_work.sees_audit(services.database, audit_id, person.person_id):
        raise NotFound(f"audit {audit_id} does not exist")


@router.post("/audits/{audit_id}/reviews")
def judge(services: Shared, audit_id: Id, form: Sent) -> Response:
    """Give a verdict on an audit or a citation, or comment on it."""
    may_judge(services, audit_id, form.caller)
    draft = review_of(form)
    reviews.judge(
        services.database, audit_id, draft, by=reviewer_of(form.caller), item_id=form.number("item")
    )
    anchor = "" if draft.rank is None or draft.verdict is None else f"citation-{draft.rank}"
    return see_other(back_to(form, f"/audits/{audit_id}", anchor=anchor))


@router.post("/reviews/{review_id}/undo")
def undo(services: Shared, review_id: Id, form: Sent) -> Response:
    """Take an entry of one's own back."""
    record = reviews.undo(services.database, review_id, by=reviewer_of(form.caller))
    return see_other(back_to(form, f"/audits/{record.audit_id}"))


@router.post("/review/{queue_id}/items/{item_id}/blind/{training_example_id}")
def judge_blind(
    services: Shared, queue_id: Id, item_id: Id, *, training_example_id: Id, form: Sent
) -> Response:
    """Judge one row of a blind item."""
    by = reviewer_of(form.caller)
    if not form.caller.sees_all and not review_work.may_see(services.database, item_id, by.person.person_id):
        raise NotFound(f"review queue {queue_id} has no item {item_id}")
    try:
        verdict = _VERDICT.validate_python(form.text("verdict"))
    except ValidationError as error:
        raise InvalidRequest(f"choose a verdict: {', '.join(Verdict)}") from error
    reviews.judge_blind(services.database, item_id, training_example_id, verdict, by=by)
    return see_other(f"/review/{queue_id}/items/{item_id}#at-hand")
