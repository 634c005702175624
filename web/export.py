"""Whole lists as files: JSONL and CSV, streamed page by page, so that a million audits need no memory."""

from collections.abc import Iterator
from itertools import chain

from fastapi.responses import StreamingResponse

from db import reader, support
from web.filters import AuditQuery
from web.services import Services
from wherefrom.csv_text import csv_line
from wherefrom.records import AuditSummary

_COLUMNS = tuple(AuditSummary.model_fields)


def jsonl(services: Services, query: AuditQuery) -> StreamingResponse:
    """One JSON object per line."""
    lines = (audit.model_dump_json() + "\n" for audit in _all_audits(services, query))
    return _file(lines, name="audits.jsonl", media_type="application/x-ndjson")


def csv(services: Services, query: AuditQuery) -> StreamingResponse:
    """A header line and one line per audit."""
    lines = (csv_line(_cells(audit)) for audit in _all_audits(services, query))
    return _file(chain([csv_line(_COLUMNS)], lines), name="audits.csv", media_type="text/csv; charset=utf-8")


def _file(lines: Iterator[str], *, name: str, media_type: str) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


def _all_audits(services: Services, query: AuditQuery) -> Iterator[AuditSummary]:
    """Every audit of the list. The first page is read at once, so that its errors are answered with a status.

    An error on a later page breaks the connection off: the client sees that the file is not whole.
    """
    limit, filters = services.settings.max_page_size, query.to_filter()
    judged = None if query.fdr is None else support.judge(services.database, filters, query.fdr)
    first = reader.list_audits(services.database, filters, cursor=None, limit=limit)

    def later() -> Iterator[AuditSummary]:
        cursor = first.next_cursor
        while cursor is not None:
            page = reader.list_audits(services.database, filters, cursor=cursor, limit=limit)
            yield from page.items
            cursor = page.next_cursor

    everything = chain(first.items, later())
    return (
        everything
        if judged is None
        else (one for audit in everything for one in support.marked([audit], judged))
    )


def _cells(audit: AuditSummary) -> list[object]:
    values = audit.model_dump(mode="json")
    return [values[name] for name in _COLUMNS]
