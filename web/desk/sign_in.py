"""Signing in with an API key, choosing a name where no key is asked for, and signing out."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from db.access import keys, people
from db.access.keys import KeyInfo
from web.asking.forms import Form, check_token, form_of, local_path, read_fields
from web.drawing.render import render
from web.guard.caller import NOBODY
from web.guard.security import asks_for_key
from web.guard.sessions import COOKIE, FORM_COOKIE, SessionKind, cookie_of, new_nonce, put_cookie
from web.json_api.api import Shared
from web.services import Services
from wherefrom.errors import Forbidden, InvalidRequest, TooManyAttempts
from wherefrom.records import utc_now

router = APIRouter(include_in_schema=False)

#: How long a form for signing in can be sent, seconds.
FORM_LIFETIME_S = 3600.0

Next = Annotated[str, Query(alias="next", max_length=2000)]


@router.get("/sign-in")
async def show(request: Request, services: Shared, wanted: Next = "/") -> Response:
    """The form: for a key, or for a name on a machine that asks for no keys."""
    nonce = cookie_of(request.headers, FORM_COOKIE) or new_nonce()
    return await run_in_threadpool(_page, request, services, nonce, wanted=wanted)


def _page(
    request: Request,
    services: Services,
    nonce: str,
    *,
    wanted: str,
    problem: str | None = None,
    status: HTTPStatus = HTTPStatus.OK,
    retry_s: float = 0.0,
) -> HTMLResponse:
    by_key = asks_for_key(request.headers, services)
    names = [] if by_key else [one.name for one in people.list_people(services.database) if not one.keys]
    request.state.caller = None
    page = render(
        "sign_in.html",
        request,
        status=status,
        by_key=by_key,
        names=names,
        wanted=local_path(wanted),
        problem=problem,
        hours=services.settings.session_hours,
        sign_in_token=services.signer().form_token(nonce),
    )
    if retry_s:
        page.headers["Retry-After"] = str(max(1, round(retry_s)))
    put_cookie(page, FORM_COOKIE, nonce, secure=is_secure(request), max_age_s=FORM_LIFETIME_S)
    return page


@router.post("/sign-in")
async def sign_in(request: Request, services: Shared) -> Response:
    """Exchange a key, or a chosen name, for a session."""
    fields = await read_fields(request)
    nonce = cookie_of(request.headers, FORM_COOKIE)
    if nonce is None:
        raise Forbidden("this form is no longer valid: open the page again, and send it from there")
    check_token(services, fields, nonce)
    form = Form(NOBODY, fields)
    enter = _by_key if form.text("key") else _by_name
    return await run_in_threadpool(enter, request, services, form, nonce)


def _by_key(request: Request, services: Services, form: Form, nonce: str) -> Response:
    key, wanted = form.text("key"), form.text("next", most=2000)
    address = request.client.host if request.client else ""
    prefix = key.removeprefix("wf_").partition("_")[0]
    if wait_s := services.sign_ins.wait_s(address, prefix):
        problem = f"{(TooManyAttempts.__doc__ or '').strip()}"
        status = HTTPStatus.TOO_MANY_REQUESTS
        return _page(request, services, nonce, wanted=wanted, problem=problem, status=status, retry_s=wait_s)
    info: KeyInfo | None = keys.check_key(services.database, key, services.key_uses)
    if info is None:
        services.sign_ins.failed(address, prefix)
        problem = "This key is unknown, expired or revoked. Ask the operator for a new one."
        return _page(request, services, nonce, wanted=wanted, problem=problem, status=HTTPStatus.UNAUTHORIZED)
    return _entered(request, services, SessionKind.KEY, info.prefix, wanted=wanted)


def _by_name(request: Request, services: Services, form: Form, nonce: str) -> Response:
    wanted = form.text("next", most=2000)
    if asks_for_key(request.headers, services):
        problem = "Enter an API key."
        return _page(request, services, nonce, wanted=wanted, problem=problem, status=HTTPStatus.UNAUTHORIZED)
    try:
        person = people.choose_local(services.database, form.text("name"))
    except (Forbidden, InvalidRequest) as error:
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return _page(request, services, nonce, wanted=wanted, problem=str(error), status=status)
    return _entered(request, services, SessionKind.LOCAL, str(person.person_id), wanted=wanted)


def _entered(request: Request, services: Services, kind: SessionKind, who: str, *, wanted: str) -> Response:
    answer = RedirectResponse(local_path(wanted), status_code=HTTPStatus.SEE_OTHER)
    signer = services.signer()
    put_cookie(
        answer, COOKIE, signer.begin(kind, who), secure=is_secure(request), max_age_s=signer.lifetime_s
    )
    answer.delete_cookie(FORM_COOKIE, path="/")
    return answer


@router.post("/sign-out")
def sign_out(services: Shared, form: Annotated[Form, Depends(form_of(None))]) -> Response:
    """End every session of the person; a chosen name is just put down."""
    if form.caller.person is not None and form.caller.proven:
        people.end_sessions(services.database, form.caller.person.person_id, now=utc_now())
    answer = RedirectResponse("/sign-in", status_code=HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, path="/")
    return answer


def is_secure(request: Request) -> bool:
    """Whether the browser came over TLS, to us or to the proxy before us; who says so falsely only loses the cookie."""
    return "https" in {request.url.scheme, request.headers.get("x-forwarded-proto", "").lower()}
