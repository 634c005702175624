"""JSON bodies of the desk's API: read with a bound, then checked against a record. `web.body` has those of flagged outputs."""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from web.body import check_content_type, parse_json, read_body
from web.errors import InvalidRecords
from wherefrom.records.explain import explain_details

#: Largest body, bytes.
BODY_BYTES = 65_536

Shape = TypeVar("Shape", bound=BaseModel)


@cache
def body_of(shape: type[Shape]) -> Callable[..., Awaitable[Shape]]:
    """The dependency that reads a body of this shape."""

    async def read(request: Request) -> Shape:
        check_content_type(request.headers.get("content-type"))
        return parsed(shape, await read_body(request, limit_bytes=BODY_BYTES))

    return read


def parsed(shape: type[Shape], raw: bytes) -> Shape:
    """A body that was read.

    Raises:
        InvalidRecords: it has another shape; the problems are listed.
    """
    value = parse_json(raw)
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        problems = explain_details(error.errors())
        raise InvalidRecords("; ".join(one.text() for one in problems), problems) from error


def documented_body(shape: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this shape; its schema is put in by `web.json_api.openapi`."""
    reference = {"$ref": f"#/components/schemas/{shape.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}
