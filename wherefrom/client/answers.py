"""Turns what the service answers into records, and says what does not fit where it cannot."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from wherefrom.errors import UnknownSchema

Record = TypeVar("Record", bound=BaseModel)


def read_answer(body: bytes, shape: type[Record]) -> Record:
    """The record in a body; fields that a newer service added are passed over."""
    try:
        return shape.model_validate_json(body, extra="ignore")
    except ValidationError as error:
        raise _unreadable(shape.__name__, error) from error


def _unreadable(wanted: str, error: ValidationError) -> UnknownSchema:
    places = ", ".join(
        ".".join(map(str, one["loc"])) or "body" for one in error.errors(include_input=False)[:3]
    )
    return UnknownSchema(
        f"the service's answer is not a {wanted} that this release reads (at {places}); client and service may be of different releases"
    )
