"""Templates and static files: one Jinja environment, autoescape always on, undefined names are errors."""

import hashlib
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

from web.drawing.display import FILTERS, share
from web.drawing.source_colours import SourceColours, mark_on_page
from web.guard.limited import is_within
from wherefrom.version import __version__

_HERE = Path(__file__).parents[1]
STATIC_DIR = _HERE / "static"


@cache
def static_url(name: str) -> str:
    """The address of a static file, with a part of its hash, so that browsers may keep it for good."""
    digest = hashlib.sha256((STATIC_DIR / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


@cache
def environment() -> Environment:
    """The Jinja environment; made on first use."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.filters["source_colour"] = pass_context(mark_on_page)
    made.globals.update(static_url=static_url, version=__version__, share=share, is_within=is_within)
    return made


def render(
    template: str,
    request: Request,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """A page of one template; the context is what the template names.

    Every page also knows who reads it (`reader`), and forms the token that they carry (`form_token()`).
    """
    known = {
        "path": request.url.path,
        "reader": getattr(request.state, "caller", None),
        "form_token": getattr(request.state, "form_token", str),
        "source_colours": SourceColours(),
    }
    html = environment().get_template(template).render(**known, **context)
    return HTMLResponse(html, status_code=status, headers=dict(headers or {}))
