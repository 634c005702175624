"""Exports and reports as methods of `Service`."""

from collections.abc import Sequence
from typing import Unpack

from wherefrom.client.filters import AuditFilters
from wherefrom.client.posting import Posts
from wherefrom.export_rows import Row
from wherefrom.frames import Stream
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
        return self._rows("/v1/export.jsonl", {**filters, **asked})

    def report(
        self, audit_ids: Sequence[int] = (), *, title: str | None = None, **filters: Unpack[AuditFilters]
    ) -> str:
        """A report of audits for people, as one HTML file with everything in it.

        Args:
            audit_ids: Which audits, at most 50.
            title: Its title.
            **filters: In place of numbers: the newest 50 audits that pass; ``in_queue`` takes a review queue.

        Raises:
            NotFound: there is no such audit, or nothing passes.
            InvalidRequest: numbers and filters are given.
        """
        numbers = [int(one) for one in audit_ids]
        body = self._connection.get("/v1/report.html", {**filters, "title": title, "audit": numbers or None})
        return body.decode("utf-8")
