"""Keyset pages: read one row more than asked for, and name the last row shown in an opaque cursor.

A page starts after a row, not after a number of rows, so rows that are added while somebody reads change no later page.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, RowMapping, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.clock import UtcTimestamp
from db.statements import AnySelect
from wherefrom.errors import InvalidRecord
from wherefrom.json_text import read_json
from wherefrom.records import Page

T = TypeVar("T")

#: Largest id that either engine stores.
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Keyset:
    """An order over two columns of a query, both descending; together they tell any two rows apart."""

    major: InstrumentedAttribute[Any]
    minor: InstrumentedAttribute[int]

    def read(
        self,
        session: Session,
        query: AnySelect,
        *,
        cursor: str | None,
        limit: int,
        record: Callable[[RowMapping], T],
    ) -> Page[T]:
        """One page of the query, with one statement.

        Args:
            session: Where to read.
            query: Selects what `record` needs; this adds the order, the position and the limit.
            cursor: `next_cursor` of the page before; None for the first page.
            limit: Most items of the page.
            record: Turns a row into an item.

        Raises:
            InvalidRecord: the cursor is not one that this order gave out.
        """
        position = (self.major.label("_major"), self.minor.label("_minor"))
        query = query.add_columns(*position).order_by(self.major.desc(), self.minor.desc()).limit(limit + 1)
        if cursor is not None:
            query = query.where(tuple_(self.major, self.minor) < self._after(cursor))
        rows: Sequence[RowMapping] = session.execute(query).mappings().all()
        shown = rows[:limit]
        more = len(rows) > len(shown) > 0
        next_cursor = _encode(shown[-1]["_major"], shown[-1]["_minor"]) if more else None
        return Page(items=tuple(record(row) for row in shown), next_cursor=next_cursor)

    def _after(self, cursor: str) -> ColumnElement[Any]:
        major, minor = _decode(cursor, datetime if isinstance(self.major.type, UtcTimestamp) else float)
        return tuple_(literal(major, self.major.type), literal(minor, self.minor.type))


def _encode(major: datetime | float, minor: int) -> str:
    position = [major.isoformat() if isinstance(major, datetime) else major, minor]
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _decode(cursor: str, kind: type[datetime] | type[float]) -> tuple[datetime | float, int]:
    try:
        written, minor = read_json(base64.b64decode(cursor, altchars=b"-_", validate=True))
        major = _aware(written) if kind is datetime else float(written)
    except (binascii.Error, ValueError, TypeError, OverflowError) as error:
        raise InvalidRecord(_NOT_OURS) from error
    if type(minor) is not int or not 0 <= minor <= _LARGEST_ID:
        raise InvalidRecord(_NOT_OURS)
    return major, minor


def _aware(written: str) -> datetime:
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.astimezone(UTC)


_NOT_OURS = "the cursor does not come from this list; start again without it"
