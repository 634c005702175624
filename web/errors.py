"""Error answers: a JSON body for programs, a page for people, one table of status codes for both.

An answer carries a stable code and a text that says what to do; never a traceback, never a model's output.
"""

import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from web.drawing.labels import named_in, with_labels
from web.drawing.render import render
from web.guard.headers import SECURITY_HEADERS
from wherefrom import errors
from wherefrom.errors import INTERNAL_ERROR, WherefromError
from wherefrom.logs import get_logger
from wherefrom.records.explain import Problem, explain_details

_log = get_logger(__name__)

#: Paths that programs read; everything else answers people with a page.
_PROGRAM_PATHS = ("/v1/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/static/")

#: Seconds after which a client may try again when something outside is away, and when the service is busy.
RETRY_AFTER_S, BUSY_RETRY_AFTER_S = 5, 1
#: What a refused request is told, wherever it is refused.
BUSY_MESSAGE = f"The service is busy. Try again in {BUSY_RETRY_AFTER_S} second."


class UnknownHost(errors.Forbidden):
    """The `Host` header is not on the allow-list."""


_STATUS: dict[type[WherefromError], HTTPStatus] = {
    errors.MalformedBody: HTTPStatus.BAD_REQUEST,
    errors.RequestAborted: HTTPStatus.BAD_REQUEST,
    errors.TooBusy: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyAttempts: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    UnknownHost: HTTPStatus.BAD_REQUEST,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.UnknownBundle: HTTPStatus.NOT_FOUND,
    errors.IdempotencyConflict: HTTPStatus.CONFLICT,
    errors.Held: HTTPStatus.CONFLICT,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TransientError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.PermanentError: HTTPStatus.UNPROCESSABLE_ENTITY,
}

_TITLES = {
    HTTPStatus.BAD_REQUEST: "This request is invalid",
    HTTPStatus.UNAUTHORIZED: "An API key is needed",
    HTTPStatus.FORBIDDEN: "This is not allowed",
    HTTPStatus.NOT_FOUND: "Not found",
    HTTPStatus.UNPROCESSABLE_ENTITY: "This request is invalid",
    HTTPStatus.TOO_MANY_REQUESTS: "The service is busy",
    HTTPStatus.SERVICE_UNAVAILABLE: "The service is not ready",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Something broke on our side",
}


class ErrorDetail(BaseModel):
    """What went wrong, for programs and for people."""

    code: str = Field(
        description="Stable code; docs/errors.md lists all of them.", examples=["invalid_record"]
    )
    message: str = Field(description="What is wrong and what to do about it.")
    field: str | None = Field(
        default=None, description="The field or parameter that caused the error, if one did."
    )
    problems: list[Problem] | None = Field(
        default=None, description="All problems, if more than one field is wrong."
    )


class ErrorBody(BaseModel):
    """Body of every error answer of the API."""

    error: ErrorDetail


class InvalidRecords(errors.InvalidRecord):
    """Records of a request that cannot be taken, with every problem found."""

    def __init__(self, message: str, problems: Sequence[Problem]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


def status_of(error: WherefromError) -> HTTPStatus:
    """The HTTP status of one of our errors: that of its nearest class in the table."""
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return HTTPStatus.INTERNAL_SERVER_ERROR


def answers_program(path: str) -> bool:
    """True where an error is answered in JSON, False where with a page."""
    return path.startswith(_PROGRAM_PATHS)


def error_answer(request: Request, status: HTTPStatus, detail: ErrorDetail) -> Response:
    """The answer to a request that failed, as JSON or as a page, with all headers it needs."""
    headers = dict(SECURITY_HEADERS)
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = str(BUSY_RETRY_AFTER_S)
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["Connection"] = "close"
    if answers_program(request.url.path):
        if status is HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="wherefrom"'
        body = ErrorBody(error=detail).model_dump(mode="json", exclude_none=True)
        return JSONResponse(body, status_code=status, headers=headers)
    if status is HTTPStatus.UNAUTHORIZED and request.headers.get("sec-fetch-mode") == "navigate":
        back = urlencode({"next": request.url.path + (f"?{request.url.query}" if request.url.query else "")})
        where = f"/sign-in?{back}" if request.method == "GET" else "/sign-in"
        return RedirectResponse(where, status_code=HTTPStatus.SEE_OTHER, headers=headers)
    if status is HTTPStatus.UNAUTHORIZED:
        # Programs may send the key as a password; people are sent to the page where they sign in.
        headers["WWW-Authenticate"] = 'Basic realm="wherefrom", charset="UTF-8"'
    title = _TITLES.get(status, status.phrase)
    without = _without(request, detail.message)
    detail = detail.model_copy(update={"message": with_labels(detail.message, request.url.path)})
    return render(
        "error.html", request, status=status, headers=headers, title=title, detail=detail, without=without
    )


def _without(request: Request, message: str) -> str | None:
    """The same page without the parameters that the message speaks of, with all others; None where it speaks of none."""
    given, wrong = request.query_params, named_in(message)
    if request.method != "GET" or not wrong & given.keys():
        return None
    kept = urlencode([(name, value) for name, value in given.multi_items() if name not in wrong])
    return request.url.path + (f"?{kept}" if kept else "")


def answer_of(request: Request, error: WherefromError) -> Response:
    """The answer to a request that raised one of our errors."""
    detail = ErrorDetail(code=error.code, message=_message(error))
    if isinstance(error, InvalidRecords):
        detail = detail.model_copy(
            update={"field": error.problems[0].field, "problems": list(error.problems)}
        )
    answer = error_answer(request, status_of(error), detail)
    if isinstance(error, errors.TooManyRequests):
        answer.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return answer


def _message(error: WherefromError) -> str:
    """What the answer says. The text of a transient error names hosts and tables, which is for the log only."""
    if isinstance(error, errors.TooBusy):
        return BUSY_MESSAGE
    if isinstance(error, errors.TransientError):
        meaning = (type(error).__doc__ or "").strip().splitlines()[0]
        return f"{meaning} Try again in {RETRY_AFTER_S} seconds; the web service's log has the details."
    return str(error) or error.code


def install_error_handlers(app: FastAPI) -> None:
    """Answer every kind of failure in our own words."""

    async def ours(request: Request, error: Exception) -> Response:
        known = error if isinstance(error, WherefromError) else WherefromError(str(error))
        if status_of(known) >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.warning("request_failed", path=request.url.path, code=known.code, reason=str(known))
        return answer_of(request, known)

    async def parameters(request: Request, error: Exception) -> Response:
        details: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
        problems = explain_details(details)
        message = "; ".join(problem.text() for problem in problems) or "the request is invalid"
        detail = ErrorDetail(
            code=errors.InvalidRequest.code, message=message, field=problems[0].field if problems else None
        )
        return error_answer(request, HTTPStatus.UNPROCESSABLE_ENTITY, detail)

    async def routing(request: Request, error: Exception) -> Response:
        status = HTTPStatus(error.status_code) if isinstance(error, HTTPException) else HTTPStatus.NOT_FOUND
        code = errors.NotFound.code if status is HTTPStatus.NOT_FOUND else errors.InvalidRequest.code
        message = {
            HTTPStatus.NOT_FOUND: f"unknown path: {request.url.path}",
            HTTPStatus.METHOD_NOT_ALLOWED: f"this path does not support {request.method}",
        }.get(status, status.phrase)
        answer = error_answer(request, status, ErrorDetail(code=code, message=message))
        allow = dict(getattr(error, "headers", None) or {})
        answer.headers.update(allow)
        return answer

    async def bug(request: Request, error: Exception) -> Response:
        del error  # the server logs it with its traceback; the answer tells nothing about it
        message = "A bug in wherefrom; the web service's log has the traceback."
        detail = ErrorDetail(code=INTERNAL_ERROR, message=message)
        return error_answer(request, HTTPStatus.INTERNAL_SERVER_ERROR, detail)

    app.add_exception_handler(WherefromError, ours)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(HTTPException, routing)
    app.add_exception_handler(Exception, bug)


def code_meanings() -> dict[str, str]:
    """What each stable code means, in one sentence, for the pages."""
    classes = (
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, WherefromError)
    )
    meanings = {kind.code: (kind.__doc__ or "").strip().splitlines()[0] for kind in classes}
    return meanings | errors.STORED_CODES


def documented(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these error answers, with their body."""
    return {int(status): {"model": ErrorBody, "description": status.phrase} for status in statuses}


#: Error answers of routes that take a body and name something stored.
DESK_REFUSALS = documented(
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.SERVICE_UNAVAILABLE,
)
