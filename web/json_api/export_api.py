"""Exports under `/v1`: audits, citations or training examples of any filter, as JSON lines, or as a ZIP with a manifest. Streamed page by page."""

from collections.abc import Iterator
from itertools import chain, islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, StreamingResponse
from pydantic import Field

from db.bundles import catalogue
from db.reading import exporting, listings, reader
from web.asking.review_forms import filter_words
from web.drawing.render import render
from web.filters import AuditPageQuery, AuditQuery, given_filters, link_query
from web.guard.caller import Caller
from web.json_api.api import READ_REFUSALS, Reader, Shared
from web.json_api.export import all_audits, file_answer
from web.selecting import selected
from web.services import Services
from wherefrom.export_files import Origins, Tally, check_format, file_name, pieces_of, zipped
from wherefrom.export_rows import Row, rows_of
from wherefrom.records import (
    AuditDetail,
    ExportFormat,
    ExportManifest,
    ExportRows,
    utc_now,
)
from wherefrom.version import __version__

api = APIRouter(prefix="/v1", tags=["export"], responses=READ_REFUSALS)
pages = APIRouter(include_in_schema=False)

#: Audits that are read whole at once.
AT_ONCE = 25


class ExportQuery(AuditQuery):
    """Which audits, and what one row of the file is; `cursor` and `limit` are not used."""

    rows: ExportRows = Field(default=ExportRows.CITATIONS, description="What one row of the file is.")


class ZipQuery(ExportQuery):
    """The same, and in which format."""

    format: ExportFormat = Field(default=ExportFormat.CSV, description="The format of the file in the ZIP.")


@api.get(
    "/export.jsonl",
    response_class=StreamingResponse,
    responses={200: {"description": "One row per line.", "content": {"application/x-ndjson": {}}}},
)
def export_lines(
    services: Shared, caller: Reader, query: Annotated[ExportQuery, Query()]
) -> StreamingResponse:
    """Every row of a selection as one JSON object per line. Rows of `audits` are whole audits, as `/v1/audits/{id}` has them. The trail notes who took it."""
    rows = export_rows(services, query, caller, form=ExportFormat.JSONL, origins=Origins())
    pieces = pieces_of(rows, query.rows, ExportFormat.JSONL)
    name = file_name(query.rows, ExportFormat.JSONL, utc_now())
    return file_answer(pieces, name=name, media_type="application/x-ndjson")


@api.get(
    "/export.zip",
    response_class=StreamingResponse,
    responses={200: {"description": "The file and `manifest.json`.", "content": {"application/zip": {}}}},
)
def export_zip(services: Shared, caller: Reader, query: Annotated[ZipQuery, Query()]) -> StreamingResponse:
    """Every row of a selection as CSV, JSON lines or Parquet, in a ZIP with a manifest: filter, bundles, number of rows, hash, times and version.

    In CSV, a `'` precedes everything that a spreadsheet would run as a formula. Parquet needs pyarrow where the service runs.
    """
    check_format(query.format)
    origins, tally, begun_at = Origins(), Tally(), utc_now()
    asked = asked_filter(services, query, caller)
    rows = export_rows(services, query, caller, form=query.format, origins=origins)
    name = file_name(query.rows, query.format, begun_at)
    pieces = tally.hashed(pieces_of(tally.counted(rows), query.rows, query.format))

    def manifest() -> ExportManifest:
        return ExportManifest(
            file=name,
            rows=query.rows,
            format=query.format,
            num_rows=tally.num_rows,
            sha256=tally.digest.hexdigest(),
            size_bytes=tally.size_bytes,
            filter=asked,
            bundles=origins.among(catalogue.list_bundles(services.database)),
            begun_at=begun_at,
            finished_at=utc_now(),
            exported_by=caller.name,
            version=__version__,
        )

    archive = zipped(name, pieces, manifest)
    return file_answer(archive, name=f"{name.rpartition('.')[0]}.zip", media_type="application/zip")


@pages.get("/export")
def export_page(
    request: Request, services: Shared, caller: Reader, query: Annotated[AuditPageQuery, Query()]
) -> HTMLResponse:
    """The forms that take a selection out: as a file of rows, or as a report."""
    found, given = selected(services, query, caller), given_filters(request)
    return render(
        "export.html",
        request,
        given=given,
        query=link_query(given),
        words=filter_words(query.to_filter()),
        facts=listings.facts(services.database, found.filters, wait=False),
        kinds=list(ExportRows),
        formats=list(ExportFormat),
    )


def export_rows(
    services: Services, query: ExportQuery, caller: Caller, *, form: ExportFormat, origins: Origins
) -> Iterator[Row]:
    """The rows of a selection, read while they are taken; the trail knows of it before the first one."""
    exporting.note_export(services.database, query.rows.value, form=form.value, filters=query.to_filter())
    if query.rows is ExportRows.EXAMPLES:
        return _begun(_example_rows(services, query, caller, origins))
    return _begun(_audit_rows(services, query, caller, form=form, origins=origins))


def _begun(rows: Iterator[Row]) -> Iterator[Row]:
    """The rows, with the first one read at once, so that an error before it is answered with a status."""
    return chain(list(islice(rows, 1)), rows)


def _example_rows(services: Services, query: ExportQuery, caller: Caller, origins: Origins) -> Iterator[Row]:
    found = selected(services, query, caller)
    wanted = listings.look_up(services.database, found.filters)
    for one in exporting.cited_examples(services.database, wanted):
        origins.corpora.add(one.corpus_sha256)
        yield one.model_dump(mode="json")


def _audit_rows(
    services: Services, query: ExportQuery, caller: Caller, *, form: ExportFormat, origins: Origins
) -> Iterator[Row]:
    whole = query.rows is ExportRows.AUDITS and form is ExportFormat.JSONL
    for detail in whole_audits(services, query, caller):
        if detail.audit.bundle is not None:
            origins.bundles.add(detail.audit.bundle)
        if whole:
            yield detail.model_dump(mode="json")
        else:
            yield from rows_of(detail, query.rows)


def whole_audits(services: Services, query: AuditQuery, caller: Caller) -> Iterator[AuditDetail]:
    """The audits of a list as wholes, in its order, some at a time."""
    summaries = all_audits(services, query, caller)
    while some := list(islice(summaries, AT_ONCE)):
        supported = {one.audit_id: one.supported for one in some}
        for detail in reader.get_audits(services.database, list(supported)):
            judged = {"supported": supported[detail.audit.audit_id]}
            yield detail.model_copy(update={"audit": detail.audit.model_copy(update=judged)})


def asked_filter(services: Services, query: AuditQuery, caller: Caller) -> dict[str, object]:
    """What selects the audits, with times that hold later too, and how they were judged and sorted."""
    plain = selected(services, query, caller).filters.model_dump(mode="json", exclude_none=True)
    return plain | query.model_dump(mode="json", include={"fdr", "sort"}, exclude_none=True)
