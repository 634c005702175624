"""From the bytes of a request body to flagged records, or to an error that says what to change.

Checks in this order: content type, size (while the body arrives), UTF-8, JSON, shape, each record. A batch with one
bad record is refused whole, so that a caller never has to find out which half was taken.
"""

import json
import math
from email.message import Message
from typing import Any, NoReturn

from fastapi import Request
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from web.errors import InvalidRecords
from wherefrom.errors import (
    BodyTooLarge,
    InvalidRequest,
    MalformedBody,
    RequestAborted,
    UnknownSchema,
    UnsupportedMediaType,
)
from wherefrom.records import RECORD_SCHEMA, FlaggedRecord
from wherefrom.records.explain import MAX_PROBLEMS, Problem, explain_details

IDEMPOTENCY_HEADER = "Idempotency-Key"


def check_content_type(value: str | None) -> None:
    """Let JSON in UTF-8 pass.

    Raises:
        UnsupportedMediaType: the header is missing or names something else.
    """
    parsed = Message()
    parsed["content-type"] = value or "missing/missing"
    kind = parsed.get_content_type()
    charset = (parsed.get_content_charset() or "utf-8").lower()
    if kind != "application/json" or charset not in {"utf-8", "utf8", "us-ascii"}:
        raise UnsupportedMediaType(
            "send `Content-Type: application/json` (UTF-8); the body is record v1 as JSON"
        )


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """The whole body; stops reading at the limit.

    Raises:
        BodyTooLarge: the body is larger than `limit_bytes`; nothing of it was parsed.
        RequestAborted: the sender went away.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit_bytes:
                raise_too_large(limit_bytes)
            chunks.append(chunk)
    except ClientDisconnect as error:
        raise RequestAborted(f"the sender went away after {size} bytes of the body") from error
    return b"".join(chunks)


def raise_too_large(limit_bytes: int) -> NoReturn:
    """Refuse a body over the limit.

    Raises:
        BodyTooLarge: always.
    """
    raise BodyTooLarge(
        f"the body is larger than {limit_bytes} bytes; send fewer records per request (setting `body_limit_bytes`)"
    )


def parse_json(body: bytes) -> Any:
    """The value of a JSON body.

    Raises:
        MalformedBody: not UTF-8 (with the byte), not JSON (with line and column), or nested too deeply.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedBody(
            f"the body is not UTF-8: byte 0x{body[error.start]:02x} at position {error.start}; encode it as UTF-8"
        ) from error
    if not text.strip():
        raise MalformedBody('the body is empty; send one record, a list of records or {"records": [...]}')
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply; record v1 needs four levels") from error
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedBody("the body holds a number that is too long") from error


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"the body holds {name}, which is not JSON; send null or omit the field")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise MalformedBody("the body holds a number that is too large")
    return value


def parse_records(
    value: Any, *, max_records: int, header_key: str | None
) -> tuple[list[FlaggedRecord], bool]:
    """The records of a parsed body, and whether one record was sent alone.

    Args:
        value: One record, a list of records, or an object whose only field is `records`.
        max_records: Most records in one request.
        header_key: Value of the `Idempotency-Key` header; only for a record sent alone.

    Raises:
        InvalidRecords: some record does not have the shape of record v1; the first problems are listed.
        UnknownSchema: a record states another schema version.
        InvalidRequest: the body has none of the three shapes, too many records, or a header that contradicts it.
    """
    items = _items(value)
    if items is None:
        return [_alone(value, header_key)], True
    if header_key is not None:
        raise InvalidRequest(
            f"the header {IDEMPOTENCY_HEADER} is for one record; give each record of a list its `idempotency_key`"
        )
    if not items:
        raise InvalidRequest("the list of records is empty; send at least one record")
    if len(items) > max_records:
        raise InvalidRequest(f"{len(items)} records in one request; send at most {max_records} at a time")
    records: list[FlaggedRecord] = []
    problems: list[Problem] = []
    untold = bad = 0
    for position, item in enumerate(items):
        try:
            records.append(_record(item))
        except ValidationError as error:
            bad += 1
            if len(problems) < MAX_PROBLEMS:
                problems += _explain(error, record=position)
            else:
                untold += error.error_count()  # nobody reads so many
    if bad:
        _refuse(problems, untold, of_records=f"{bad} of {len(items)}" if len(items) > 1 else None)
    return records, False


def _items(value: Any) -> list[Any] | None:
    """The list that was sent, or None where one record was sent alone."""
    if isinstance(value, list):
        return value
    if not isinstance(value, dict):
        raise InvalidRequest('send one record (a JSON object), a list of records or {"records": [...]}')
    if "records" not in value:
        return None
    if len(value) > 1 or not isinstance(value["records"], list):
        raise InvalidRequest("`records` must be a list and the only field of the object")
    items: list[Any] = value["records"]
    return items


def _alone(value: Any, header_key: str | None) -> FlaggedRecord:
    if header_key is not None:
        if not (header_key.isascii() and header_key.isprintable()):
            raise InvalidRequest(f"the header {IDEMPOTENCY_HEADER} must be printable ASCII")
        if value.get("idempotency_key", header_key) != header_key:
            raise InvalidRequest(
                f"the header {IDEMPOTENCY_HEADER} and the field `idempotency_key` differ; send one"
            )
        value = {**value, "idempotency_key": header_key}
    try:
        return _record(value)
    except ValidationError as error:
        _refuse(_explain(error, record=None))


def _record(value: Any) -> FlaggedRecord:
    return FlaggedRecord.model_validate(value)


def _explain(error: ValidationError, *, record: int | None) -> list[Problem]:
    details = error.errors(include_url=False, include_input=False, include_context=False)
    where = "" if record is None else f"record {record}: "
    if any(detail["loc"] == ("schema",) for detail in details):
        raise UnknownSchema(
            f"{where}`schema` must be {RECORD_SCHEMA}; this release supports no other version"
        ) from error
    return explain_details(details, record=record, skip=frozenset())


def _refuse(problems: list[Problem], untold: int = 0, *, of_records: str | None = None) -> NoReturn:
    shown = problems[:MAX_PROBLEMS]
    text = "; ".join(problem.text() for problem in shown[:3])
    more = len(problems) + untold - min(len(shown), 3)
    text += f"; and {more} more" if more > 0 else ""
    if of_records is not None:
        text = f"{of_records} records are invalid, so none was stored. {text}"
    raise InvalidRecords(text, shown)
