"""Validation errors in words a caller can act on: which record, which field, what to do.

Never repeats the value that was sent: it may be a model's output.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wherefrom.records.bounds import MAX_TEXT_CHARS

#: Problems told in one answer; a broken batch of a thousand records needs no thousand lines.
MAX_PROBLEMS = 20

#: More problems than this are only counted where all stand on one line.
PROBLEMS_IN_A_LINE = 5

#: Longest path of a field in an answer.
MAX_FIELD_CHARS = 200

_ADVICE = {
    "string_type": "send a JSON string",
    "int_type": "send a JSON integer",
    "int_parsing": "send an integer",
    "list_type": "send a JSON list",
    "tuple_type": "send a JSON list",
    "dict_type": "send a JSON object",
    "model_type": "send a JSON object",
    "timezone_aware": "add the time zone, for example 2026-01-31T12:00:00Z",
    "datetime_parsing": "send ISO 8601 with a time zone, for example 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "send ISO 8601 with a time zone, for example 2026-01-31T12:00:00Z",
    "string_too_short": "it must not be empty",
}


class Problem(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(str_max_length=MAX_TEXT_CHARS)

    record: int | None = Field(default=None, description="Position in the list that was sent, from 0.")
    field: str | None = Field(default=None, description="Path of the field, for example `messages[0].role`.")
    message: str = Field(description="What is wrong and what to do.")

    def text(self) -> str:
        """The problem in one sentence."""
        where = [f"record {self.record}"] if self.record is not None else []
        where += [f"`{self.field}`"] if self.field else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Dotted path of the first field that is wrong (empty for the whole record), and pydantic's own words; the value is not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ".".join(map(str, first["loc"])), first["msg"]


def describe_problems(error: ValidationError) -> str:
    """One line for all problems of a record: `severity`: input should be ...; `spans[0].end`: ..."""
    problems = explain_details(
        error.errors(include_input=False, include_url=False, include_context=False), skip=frozenset()
    )
    texts = [problem.text() for problem in problems[:PROBLEMS_IN_A_LINE]]
    if len(problems) > PROBLEMS_IN_A_LINE:
        texts.append(f"and {len(problems) - PROBLEMS_IN_A_LINE} more")
    return "; ".join(texts)


def field_path(location: Iterable[str | int]) -> str:
    """A pydantic location as people write it: `messages[0].role`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != "[key]":
            path += f".{part}" if path else part
    # A name of the caller's own may be anything; an answer is short and valid Unicode.
    return path.encode("utf-8", "backslashreplace").decode("utf-8")[:MAX_FIELD_CHARS]


def _message(detail: Mapping[str, Any]) -> str:
    text = str(detail["msg"]).removeprefix("Value error, ")
    kind = str(detail["type"])
    if kind == "missing":
        return "is missing; add it"
    if kind == "string_unicode":
        return "holds a lone surrogate (\\ud800 to \\udfff), so it is not valid Unicode; replace it"
    if kind == "extra_forbidden":
        return "is not a field of record v1; put your own metadata under `labels`"
    advice = _ADVICE.get(kind)
    text = text[:1].lower() + text[1:]
    return f"{text}; {advice}" if advice else text


def explain_details(
    details: Sequence[Mapping[str, Any]],
    *,
    record: int | None = None,
    skip: frozenset[str] = frozenset({"query", "path"}),
) -> list[Problem]:
    """Problems of one validation error, in the order found.

    Args:
        details: What pydantic's `errors()` returns.
        record: Position of the record they belong to, from 0; None where one record was sent alone.
        skip: First parts of a location that name no field.
    """
    problems = []
    for detail in details:
        location = list(detail["loc"])
        if location and location[0] in skip:
            location = location[1:]
        message = _message(detail)
        if skip and detail["type"] == "extra_forbidden" and record is None and "query" in detail["loc"]:
            message = "is not a parameter of this path; see /openapi.json"
        problems.append(Problem(record=record, field=field_path(location) or None, message=message))
    return problems
