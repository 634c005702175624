"""Who may do what in review queues, and what the forms of the desk say. No SQL."""

from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import urlencode

from pydantic import BaseModel, ValidationError

from db.reviewing.reviews import Reviewer
from web.asking.forms import Form, local_path
from web.drawing.labels import label_of
from web.filters import AuditPageQuery
from web.guard.caller import Caller
from wherefrom.errors import Forbidden, InvalidRequest
from wherefrom.records import FILTER_NAMES, AuditFilter, QueueDraft, ReviewDraft
from wherefrom.records.explain import explain_details

Shape = TypeVar("Shape", bound=BaseModel)


class PersonNeeded(Forbidden):
    """The request needs a person: a name that is chosen, or a key with a person behind it."""


def reviewer_of(caller: Caller) -> Reviewer:
    """Who judges.

    Raises:
        PersonNeeded: nobody stands behind the request.
    """
    if caller.person is not None:
        return Reviewer(caller.person, caller.via)
    if caller.proven:
        raise PersonNeeded(
            f"the API key {caller.name!r} has no person behind it; make one: python -m worker people add NAME --role auditor"
        )
    raise PersonNeeded("choose a name first; verdicts are kept under it")


def person_id_of(caller: Caller) -> int | None:
    """Number of the person behind a request; None where there is nobody."""
    return None if caller.person is None else caller.person.person_id


def needs_all(caller: Caller) -> None:
    """Let those pass who see everything; the others work on what they are given.

    Raises:
        Forbidden: the caller sees their queues and assignments only.
    """
    if not caller.sees_all:
        raise Forbidden(f"{caller.name!r} lacks the scope `read`, so queues are managed by others")


def filter_of(form: Form) -> AuditFilter:
    """The filter whose fields a form carries.

    Raises:
        InvalidRequest: a value cannot be used.
    """
    given = {name: form.text(name) for name in FILTER_NAMES if form.has(name)}
    try:
        return AuditPageQuery.model_validate(given).to_filter()
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from error


def draft_of(form: Form) -> QueueDraft:
    """The queue that a form describes.

    Raises:
        InvalidRequest: a value cannot be used.
    """
    rule = filter_of(form) if form.has("by_rule") else None
    given = {
        "name": form.text("name"),
        "rule": rule,
        "order": form.text("order") or "oldest",
        "reviewers": form.number("reviewers") or 1,
        "dedupe": form.has("dedupe"),
        "blind": form.has("blind"),
    }
    return checked(QueueDraft, given)


def review_of(form: Form) -> ReviewDraft:
    """The verdict or comment that a form holds.

    Raises:
        InvalidRequest: it says nothing, or a value cannot be used.
    """
    given = {
        "rank": form.number("rank"),
        "verdict": form.text("verdict") or None,
        "comment": form.text("comment", most=4000),
        "quote": form.text("quote", most=4000) or None,
        "part": form.text("part") or "output",
    }
    return checked(ReviewDraft, given)


def back_to(form: Form, otherwise: str, *, anchor: str = "") -> str:
    """Where to go after a form was taken: the page that it stood on."""
    wanted = form.text("back", most=2000)
    return (local_path(wanted) if wanted else otherwise) + (f"#{anchor}" if anchor else "")


def plain_filters(filters: AuditFilter) -> dict[str, str]:
    """The filters that are given as parameters of the list."""
    return {name: str(value) for name, value in filters.model_dump(mode="json", exclude_none=True).items()}


def filter_query(filters: AuditFilter) -> str:
    """The query part of a link to the list with this filter; empty where it takes everything."""
    given = plain_filters(filters)
    return f"?{urlencode(given)}" if given else ""


def filter_words(filters: AuditFilter | None) -> list[tuple[str, str]]:
    """The filter as labels of the form and values, for people; empty where it takes everything."""
    if filters is None:
        return []
    return [(label_of(name), value) for name, value in plain_filters(filters).items()]


def checked(shape: type[Shape], given: Mapping[str, object]) -> Shape:
    """The values as a record of this shape.

    Raises:
        InvalidRequest: a value cannot be used.
    """
    try:
        return shape.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from error


def _told(error: ValidationError) -> str:
    return "; ".join(problem.text() for problem in explain_details(error.errors()))
