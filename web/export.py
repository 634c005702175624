"""Whole lists as files: JSONL and CSV, streamed page by page, so that a million audits need no memory."""

from collections.abc import Iterator
from itertools import chain

from fastapi.responses import StreamingResponse

from db import reader, support
from web.caller import Caller
from web.filters import AuditQuery
from web.selecting import selected
from web.services import Services
from wherefrom.csv_text import csv_line
from wherefrom.records import AuditSummary, Page

_COLUMNS = tuple(AuditSummary.model_fields)


def jsonl(services: Services, query: AuditQuery, caller: Caller) -> StreamingResponse:
    """One JSON object per line."""
    lines = (audit.model_dump_json() + "\n" for audit in _all_audits(services, query, caller))
    return _file(lines, name="audits.jsonl", media_type="application/x-ndjson")


def csv(services: Services, query: AuditQuery, caller: Caller) -> StreamingResponse:
    """A header line and one line per audit."""
    lines = (csv_line(_cells(audit)) for audit in _all_audits(services, query, caller))
    return _file(chain([csv_line(_COLUMNS)], lines), name="audits.csv", media_type="text/csv; charset=utf-8")


def _file(lines: Iterator[str], *, name: str, media_type: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


def _all_audits(services: Services, query: AuditQuery, caller: Caller) -> Iterator[AuditSummary]:
    """Every audit of the list in its order. The first page is read at once, so that its errors are answered with a status.

    An error on a later page breaks the connection off: the client sees that the file is not whole.
    """
    database, found = services.database, selected(services, query, caller)
    judged = None if query.fdr is None else support.judge(database, found.filters, query.fdr)

    def page(cursor: str | None) -> Page[AuditSummary]:
        return reader.list_audits(
            database,
            found.filters,
            order=query.order,
            cursor=cursor,
            limit=services.settings.max_page_size,
            supported=found.supported,
        )

    first = page(None)

    def later() -> Iterator[AuditSummary]:
        cursor = first.next_cursor
        while cursor is not None:
            following = page(cursor)
            yield from following.items
            cursor = following.next_cursor

    everything = chain(first.items, later())
    return (
        everything
        if judged is None
        else (one for audit in everything for one in support.marked([audit], judged))
    )


def _cells(audit: AuditSummary) -> list[object]:
    values = audit.model_dump(mode="json")
    return [values[name] for name in _COLUMNS]
