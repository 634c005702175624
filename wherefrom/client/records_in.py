"""Turns what a caller gives into record v1, and says in one line what is wrong where it cannot."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from wherefrom.errors import InvalidRecord
from wherefrom.records import FlaggedRecord

#: More problems than this in one record are only counted.
PROBLEMS_TOLD = 5


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


def describe_problems(error: ValidationError) -> str:
    """One line for all problems: `severity: Input should be ...; spans[0].end: ...`."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    told = [
        f"{_place(one['loc'])}{one['msg'].removeprefix('Value error, ')}" for one in found[:PROBLEMS_TOLD]
    ]
    if len(found) > PROBLEMS_TOLD:
        told.append(f"and {len(found) - PROBLEMS_TOLD} more")
    return "; ".join(told)


def record_json(record: FlaggedRecord, *, idempotency_key: str) -> str:
    """The record as JSON with this key; fields that say nothing are left out."""
    keyed = record.model_copy(update={"idempotency_key": idempotency_key})
    return keyed.model_dump_json(by_alias=True, exclude_none=True)


def _place(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{path}: " if path else ""
