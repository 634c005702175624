"""Exports and reports as methods of `Service`."""

from typing import Any, Unpack

from wherefrom.client.filters import AuditFilters
from wherefrom.client.posting import Posts
from wherefrom.errors import ServiceUnavailable
from wherefrom.export_rows import Row
from wherefrom.frames import Stream
from wherefrom.json_text import read_json
from wherefrom.records import AuditOrder, ExportRows


class ExportService(Posts):
    """What leaves the service as a whole. Needs a key with the scope `read`; the service's trail notes each export."""

    def export_rows(
        self,
        rows: ExportRows | str = ExportRows.CITATIONS,
        *,
        fdr: float | None = None,
        sort: AuditOrder | str | None = None,
        unseen: bool | None = None,
        **filters: Unpack[AuditFilters],
    ) -> Stream[Row]:
        """Every row of a selection, as it comes; no list of them is held anywhere.

        Args:
            rows: ``audits`` (whole audits, as `audit` has them), ``citations`` (flat rows), or ``examples``: each training example
                that the answered audits cite, once.
            fdr: See `Service.audits`.
            sort: See `Service.audits`.
            unseen: See `Service.audits`.
            **filters: The selection; all where none is given.

        Raises:
            ServiceUnavailable: the connection broke before the last row; what was read is not whole.
        """
        asked = {"rows": ExportRows(rows).value, "fdr": fdr, "sort": sort, "unseen": unseen}
        return Stream(map(self._row, self._connection.lines("/v1/export.jsonl", {**filters, **asked})))

    def _row(self, line: bytes) -> Row:
        try:
            found: Any = read_json(line)
        except ValueError as error:
            raise ServiceUnavailable(f"{self._connection.url} sent a broken row; try again") from error
        if not isinstance(found, dict):
            raise ServiceUnavailable(f"{self._connection.url} sent a row that is no object")
        return found
