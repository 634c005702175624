"""Whole lists as files: JSONL and CSV, streamed page by page, so that a million audits need no memory."""

import csv as csv_format
import io
from collections.abc import Iterator
from itertools import chain

from fastapi.responses import StreamingResponse

from db import reader, support
from web.filters import AuditQuery
from web.services import Services
from wherefrom.records import AuditSummary

#: What a spreadsheet takes for the start of a formula.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

_COLUMNS = tuple(AuditSummary.model_fields)


def jsonl(services: Services, query: AuditQuery) -> StreamingResponse:
    """One JSON object per line."""
    lines = (audit.model_dump_json() + "\n" for audit in _all_audits(services, query))
    return _file(lines, name="audits.jsonl", media_type="application/x-ndjson")


def csv(services: Services, query: AuditQuery) -> StreamingResponse:
    """A header line and one line per audit."""
    lines = (_csv_line(_cells(audit)) for audit in _all_audits(services, query))
    return _file(
        chain([_csv_line(list(_COLUMNS))], lines), name="audits.csv", media_type="text/csv; charset=utf-8"
    )


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


def _cells(audit: AuditSummary) -> list[str]:
    values = audit.model_dump(mode="json")
    return [_harmless(values[name]) for name in _COLUMNS]


def _harmless(value: object) -> str:
    """A cell's text; what a spreadsheet would run gets an apostrophe before it. Numbers stay numbers."""
    if value is None:
        return ""
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA_STARTS) else text


def _csv_line(cells: list[str]) -> str:
    line = io.StringIO()
    csv_format.writer(line).writerow(cells)
    return line.getvalue()
