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

from sqlalchemy import ColumnElement, Integer, RowMapping, SQLColumnExpression, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.clock import UtcTimestamp
from db.statements import AnySelect
from wherefrom.errors import InvalidRecord
from wherefrom.json_text import read_json
from wherefrom.records import Page

T = TypeVar("T")

#: Largest id that either engine stores.
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Keyset:
    """An order over two columns of a query, both in one direction; together they tell any two rows apart. Rows without the first are left out."""

    major: InstrumentedAttribute[Any]
    minor: InstrumentedAttribute[int]
    falling: bool = True
    #: Tells cursors of several orders of one list apart; None for the only or the first order.
    name: str | None = None
    #: What the rows are sorted by in place of `major`, where that has an index that is in the way.
    sorted_by: SQLColumnExpression[Any] | None = None

    def read(
        self,
        session: Session,
        query: AnySelect,
        *,
        cursor: str | None,
        limit: int,
        record: Callable[[RowMapping], T],
        conditions: Sequence[ColumnElement[bool]] = (),
    ) -> Page[T]:
        """One page of the query, with one statement.

        Args:
            session: Where to read.
            query: Selects what `record` needs; this adds the order, the position and the limit.
            cursor: `next_cursor` of the page before; None for the first page.
            limit: Most items of the page.
            record: Turns a row into an item.
            conditions: What else must hold of a row; asked once, where the page is picked.

        Raises:
            InvalidRecord: the cursor is not one that this order gave out.
        """
        position = (self.major.label("_major"), self.minor.label("_minor"))
        wanted = self._behind(query.where(*conditions), cursor)
        if self.sorted_by is None:
            wanted = wanted.limit(limit + 1)
        else:  # sort numbers only, and read what the page shows
            picked = wanted.with_only_columns(self.minor, maintain_column_froms=True)
            picked = picked.order_by(*self._order()).limit(limit + 1)
            wanted = query.where(self.minor.in_(picked))
        query = wanted.add_columns(*position).order_by(*self._order())
        rows: Sequence[RowMapping] = session.execute(query).mappings().all()
        shown = rows[:limit]
        more = len(rows) > len(shown) > 0
        next_cursor = self._encode(shown[-1]["_major"], shown[-1]["_minor"]) if more else None
        return Page(items=tuple(record(row) for row in shown), next_cursor=next_cursor)

    def next_ids(self, session: Session, *, cursor: str | None, limit: int) -> Sequence[int]:
        """The next rows of the table by their numbers, whatever a query selects of them; one statement.

        Raises:
            InvalidRecord: the cursor is not one that this order gave out.
        """
        query = self._behind(select(self.minor), cursor).order_by(*self._order()).limit(limit)
        return session.scalars(query).all()

    def _behind(self, query: AnySelect, cursor: str | None) -> AnySelect:
        """The rows behind the cursor."""
        if cursor is not None:
            here, there = tuple_(self.major, self.minor), self._after(cursor)
            query = query.where(here < there if self.falling else here > there)
        return query.where(self.major.is_not(None)) if self.major.property.columns[0].nullable else query

    def _order(self) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
        first = self.major if self.sorted_by is None else self.sorted_by
        return (first.desc(), self.minor.desc()) if self.falling else (first.asc(), self.minor.asc())

    def _after(self, cursor: str) -> ColumnElement[Any]:
        major, minor = self._decode(cursor)
        return tuple_(literal(major, self.major.type), literal(minor, self.minor.type))

    def _encode(self, major: datetime | float, minor: int) -> str:
        position: list[Any] = [major.isoformat() if isinstance(major, datetime) else major, minor]
        if self.name is not None:
            position.append(self.name)
        return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()

    def _decode(self, cursor: str) -> tuple[datetime | float, int]:
        try:
            position = read_json(base64.b64decode(cursor, altchars=b"-_", validate=True))
            written, minor, *name = position
            major = self._major(written)
        except (binascii.Error, ValueError, TypeError, OverflowError) as error:
            raise InvalidRecord(_NOT_OURS) from error
        if type(minor) is not int or not 0 <= minor <= LARGEST_ID:
            raise InvalidRecord(_NOT_OURS)
        if name != ([] if self.name is None else [self.name]):
            raise InvalidRecord(_NOT_OURS)
        return major, minor

    def _major(self, written: Any) -> datetime | float:
        if isinstance(self.major.type, UtcTimestamp):
            return _aware(written)
        return int(written) if isinstance(self.major.type, Integer) else float(written)


def _aware(written: str) -> datetime:
    moment = datetime.fromisoformat(written)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.astimezone(UTC)


_NOT_OURS = "the cursor does not come from this list; start again without it"
