"""Turns what a caller gives into record v1, and says in one line what is wrong where it cannot."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wherefrom.errors import InvalidRecord
from wherefrom.records import FlaggedRecord
from wherefrom.records.explain import describe_problems


def read_record(given: FlaggedRecord | Mapping[str, Any]) -> FlaggedRecord:
    """The flagged output that `given` describes.

    Raises:
        InvalidRecord: a field is missing, unknown or has a wrong value; the text names fields, never their content.
    """
    if isinstance(given, FlaggedRecord):
        return given
    try:
        return FlaggedRecord.model_validate(dict(given))
    except ValidationError as error:
        raise InvalidRecord(describe_problems(error)) from error


def record_json(record: FlaggedRecord, *, idempotency_key: str) -> str:
    """The record as JSON with this key; fields that say nothing are left out."""
    keyed = record.model_copy(update={"idempotency_key": idempotency_key})
    return keyed.model_dump_json(by_alias=True, exclude_none=True)
