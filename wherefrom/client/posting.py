"""What the parts of `Service` have in common: a JSON body out and a record back, and lists page by page."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from wherefrom.client.answers import Record, read_answer
from wherefrom.client.connection import Connection
from wherefrom.errors import ServiceUnavailable
from wherefrom.export_rows import Row
from wherefrom.frames import Records, Stream
from wherefrom.json_text import read_json
from wherefrom.records import Page


class Posts:
    """Sends bodies and follows pages over the service's connection."""

    _connection: Connection

    def _send(
        self, path: str, body: Mapping[str, Any], shape: type[Record], *, reviewer: str | None = None
    ) -> Record:
        query = "" if reviewer is None else f"?{urlencode({'reviewer': reviewer})}"
        answer = self._connection.post(path + query, json.dumps(body).encode())
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, shape)

    def _list(
        self, path: str, shape: type[Page[Record]], parameters: Mapping[str, Any] | None = None
    ) -> Records[Record]:
        """All items of a list that has one page."""
        return Records(read_answer(self._connection.get(path, parameters), shape).items)

    def _pages(
        self,
        path: str,
        shape: type[Page[Record]],
        parameters: Mapping[str, Any],
        page_size: int | None = None,
    ) -> Stream[Record]:
        """All items of a list; pages are fetched while the caller reads, as long as the service has them where no size is given."""
        return Stream(self._items(path, shape, parameters, page_size))

    def _pages_after(
        self,
        path: str,
        shape: type[Page[Record]],
        parameters: Mapping[str, Any],
        place: Callable[[Record], int],
    ) -> Stream[Record]:
        """All items of a list whose pages begin behind the `place` of the last item of the page before."""

        def items() -> Iterator[Record]:
            after: int | None = None
            while True:
                asked = {**parameters, "after": after}
                found = read_answer(self._connection.get(path, asked), shape).items
                yield from found
                if not found:
                    return
                after = place(found[-1])

        return Stream(items())

    def _rows(self, path: str, parameters: Mapping[str, Any]) -> Stream[Row]:
        """The JSON objects of an answer that has one a line, as they come.

        Raises:
            ServiceUnavailable: while it is read: the connection broke, or a line is no object.
        """
        return Stream(map(self._row, self._connection.lines(path, parameters)))

    def _row(self, line: bytes) -> Row:
        try:
            found: Any = read_json(line)
        except ValueError as error:
            raise ServiceUnavailable(f"{self._connection.url} sent a broken row; try again") from error
        if not isinstance(found, dict):
            raise ServiceUnavailable(f"{self._connection.url} sent a row that is no object")
        return found

    def _items(
        self, path: str, shape: type[Page[Record]], parameters: Mapping[str, Any], page_size: int | None
    ) -> Iterator[Record]:
        cursor: str | None = None
        while True:
            asked = {**parameters, "limit": page_size, "cursor": cursor}
            page = read_answer(self._connection.get(path, asked), shape)
            yield from page.items
            cursor = page.next_cursor
            if cursor is None:
                return


def plain(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as JSON: enums by value, times in ISO 8601; those that are not given are left out."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
        if value is not None
    }
