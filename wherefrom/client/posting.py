"""What the parts of `Service` that write have in common: a JSON body out, a record back."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from wherefrom.client.answers import Record, read_answer
from wherefrom.client.connection import Connection


class Posts:
    """Sends bodies over the service's connection."""

    _connection: Connection

    def _send(
        self, path: str, body: Mapping[str, Any], shape: type[Record], *, reviewer: str | None = None
    ) -> Record:
        query = "" if reviewer is None else f"?{urlencode({'reviewer': reviewer})}"
        answer = self._connection.post(path + query, json.dumps(body).encode())
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, shape)


def plain(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Filters as JSON: enums by value, times in ISO 8601; those that are not given are left out."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
        if value is not None
    }
