"""Reads one entry of the flagged stream into a record, or says why it cannot."""

import json
import re
from collections.abc import Mapping

from pydantic import ValidationError

from wherefrom.errors import BodyTooLarge, InvalidRecord, UnknownSchema
from wherefrom.messages import RECORD_FIELD, REPLAYED_FIELD
from wherefrom.records import RECORD_SCHEMA, FlaggedRecord
from wherefrom.records.explain import describe_problems
from wherefrom.traceparent import TRACEPARENT, read_traceparent

_ENTRY_ID = re.compile(rb"[0-9]{1,20}-[0-9]{1,20}")


def read_entry(fields: Mapping[bytes, bytes], *, entry_id: str, limit_bytes: int) -> FlaggedRecord:
    """The record of a stream entry; without a key of its own it gets the entry's id, its first one where it was taken back.

    Args:
        fields: The entry as Redis holds it.
        entry_id: Id that Redis gave the entry.
        limit_bytes: Largest record.

    Raises:
        InvalidRecord: no field `record`, not UTF-8, not JSON, or not of the documented shape.
        BodyTooLarge: more than `limit_bytes` bytes.
        UnknownSchema: a record of a version that this release does not read.
    """
    raw = fields.get(RECORD_FIELD.encode())
    if raw is None:
        raise InvalidRecord(f"the entry has no field `{RECORD_FIELD}`")
    if len(raw) > limit_bytes:
        raise BodyTooLarge(f"the record has {len(raw)} bytes, the limit is {limit_bytes}")
    record = _record(raw)
    if record.idempotency_key is not None:
        return record
    first = fields.get(REPLAYED_FIELD.encode(), b"")
    key = first.decode() if _ENTRY_ID.fullmatch(first) else entry_id
    return record.model_copy(update={"idempotency_key": key})


def trace_of(fields: Mapping[bytes, bytes]) -> str | None:
    """The traceparent of a stream entry; None where it has none that is valid."""
    return read_traceparent(fields.get(TRACEPARENT.encode()))


def _record(raw: bytes) -> FlaggedRecord:
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"the record is not UTF-8 (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise InvalidRecord(f"the record is not JSON: {error.msg} at character {error.pos}") from error
    except RecursionError as error:
        raise InvalidRecord("the record is nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise InvalidRecord("the record holds a number that is too long") from error
    if not isinstance(value, dict):
        raise InvalidRecord(f"the record is a JSON {type(value).__name__}, not an object")
    schema = value.get("schema", RECORD_SCHEMA)
    if schema != RECORD_SCHEMA:
        said = schema if isinstance(schema, int) and abs(schema) < 1000 else f"a {type(schema).__name__}"
        raise UnknownSchema(f"this release reads schema {RECORD_SCHEMA}, the record says {said}")
    try:
        return FlaggedRecord.model_validate(value)
    except ValidationError as error:
        raise InvalidRecord(describe_problems(error)) from error
