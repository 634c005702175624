"""Whole lists as files: JSONL and CSV, streamed page by page, so that a million audits need no memory."""

from collections.abc import Iterable, Iterator
from itertools import chain

from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from db.audit_trail.reads import note_file
from db.reading import exporting, reader, support
from web.filters import AuditQuery
from web.guard.caller import Caller
from web.selecting import selected
from web.services import Services
from wherefrom.csv_text import csv_line
from wherefrom.records import AuditSummary, Page

_COLUMNS = tuple(AuditSummary.model_fields)


def jsonl(services: Services, query: AuditQuery, caller: Caller) -> StreamingResponse:
    """One JSON object per line."""
    exporting.note_export(services.database, "summaries", form="jsonl", filters=query.to_filter())
    return json_lines(all_audits(services, query, caller), name="audits.jsonl")


def csv(services: Services, query: AuditQuery, caller: Caller) -> StreamingResponse:
    """A header line and one line per audit."""
    exporting.note_export(services.database, "summaries", form="csv", filters=query.to_filter())
    lines = (csv_line(_cells(audit)) for audit in all_audits(services, query, caller))
    return file_answer(
        chain([csv_line(_COLUMNS)], lines), name="audits.csv", media_type="text/csv; charset=utf-8"
    )


def json_lines(records: Iterable[BaseModel], *, name: str | None = None) -> StreamingResponse:
    """Records as one JSON object per line, read while they are sent; with a name, a file to keep."""
    lines = (record.model_dump_json() + "\n" for record in records)
    return file_answer(lines, name=name, media_type="application/x-ndjson")


def file_answer(lines: Iterable[str | bytes], *, name: str | None, media_type: str) -> StreamingResponse:
    """What is sent while it is read; with a name, a file to keep."""
    headers = {} if name is None else {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(lines, media_type=media_type, headers=headers)


def all_audits(services: Services, query: AuditQuery, caller: Caller) -> Iterator[AuditSummary]:
    """Every audit of the list in its order. The first page is read at once, so that its errors are answered with a status.

    An error on a later page breaks the connection off: the client sees that the file is not whole.
    """
    note_file()
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
