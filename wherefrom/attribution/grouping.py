"""Which outputs of a file are one question: all of them, or those that share the value of a field."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.corpus.rows import UNNAMED_SOURCE
from wherefrom.attribution.offline import query_of, read_each
from wherefrom.attribution.output_group import TokenizedGroup
from wherefrom.attribution.query import TokenizedQuery
from wherefrom.errors import InvalidRecord
from wherefrom.records import Query, QueryGroup
from wherefrom.records.bounds import MAX_MEMBERS


@dataclass(frozen=True)
class NamedQuery:
    """A query and the group that it belongs to."""

    query: Query
    #: None for an acceptable answer that belongs to every group.
    group: str | None


def read_members(file: Path, field: str | None, *, skip_bad: bool = False) -> tuple[list[NamedQuery], int]:
    """Outputs of a JSONL file with their groups.

    Args:
        file: as of `offline.read_queries`.
        field: whose value names the group, such as `reason` or `labels.topic`; None: all of the file is one group, with the file's name.
        skip_bad: leave bad lines out and count them.

    Raises:
        InvalidRecord: a line is malformed or lacks the field; the text names the line.
        EmptyCorpus: the file holds no query.
    """
    return read_each(file, partial(_member, field=field, name=file.stem), skip_bad=skip_bad)


def read_answers(file: Path, field: str | None, *, skip_bad: bool = False) -> tuple[list[NamedQuery], int]:
    """Acceptable answers of a JSONL file. One that has the field counts for its group alone, one without it for every group.

    Raises:
        InvalidRecord, EmptyCorpus: as of `read_members`.
    """
    return read_each(file, partial(_answer, field=field), skip_bad=skip_bad)


def join(members: Sequence[NamedQuery], against: Sequence[NamedQuery]) -> list[QueryGroup]:
    """Groups in the order in which they are first met.

    Raises:
        InvalidRecord: a group has too many outputs or answers.
    """
    names = list(dict.fromkeys(one.group or "" for one in members))
    return [
        QueryGroup(
            key=name,
            members=_bounded(name, [one.query for one in members if one.group == name], "outputs"),
            against=_bounded(
                name, [one.query for one in against if one.group in (None, name)], "acceptable answers"
            ),
        )
        for name in names
    ]


def tokenized(group: QueryGroup, prepared: Mapping[int, TokenizedQuery]) -> TokenizedGroup | None:
    """A group of what could be turned into tokens, by the `id` of each query; None where no output is left."""
    members, against = (
        tuple(prepared[id(one)] for one in some if id(one) in prepared)
        for some in (group.members, group.against)
    )
    return TokenizedGroup(group, members, against) if members else None


def _member(row: CorpusRow, *, field: str | None, name: str) -> NamedQuery:
    if field is None:
        return NamedQuery(query_of(row), name)
    value = _value(row, field)
    if value is None:
        raise InvalidRecord(f"has no field `{field}`, which says what group it belongs to")
    return NamedQuery(query_of(row), value)


def _answer(row: CorpusRow, *, field: str | None) -> NamedQuery:
    return NamedQuery(query_of(row), None if field is None else _value(row, field))


def _value(row: CorpusRow, field: str) -> str | None:
    """The value of a field by its path; None where there is none.

    Raises:
        InvalidRecord: it is no text, number or truth value.
    """
    if field == "source":
        return None if row.source == UNNAMED_SOURCE else row.source
    found: Any = row.fields
    for part in field.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    if found is None or (isinstance(found, str) and not found):
        return None
    if not isinstance(found, str | int | float):
        raise InvalidRecord(f"field `{field}` must be a text or a number, to name a group")
    return str(found)


def _bounded(name: str, queries: list[Query], what: str) -> tuple[Query, ...]:
    if len(queries) > MAX_MEMBERS:
        raise InvalidRecord(
            f"group {name} has {len(queries)} {what}; at most {MAX_MEMBERS} can be one question"
        )
    return tuple(queries)
