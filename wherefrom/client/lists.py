"""The part of `Service` about lists of audits as a whole: how many a filter finds, saved views, and what is done to all of them."""

from typing import Unpack
from urllib.parse import urlencode

from wherefrom.client.answers import read_answer
from wherefrom.client.filters import AuditFilters
from wherefrom.client.posting import Posts, plain
from wherefrom.frames import Records
from wherefrom.records import (
    BulkAction,
    BulkPreview,
    BulkResult,
    ListingFacts,
    Page,
    SavedViewRecord,
    Verdict,
)


class ListService(Posts):
    """Lists of audits as a whole, as methods. Needs a key with the scope `read`, and `review` for what changes audits."""

    def listing(self, *, fdr: float | None = None, **filters: Unpack[AuditFilters]) -> ListingFacts:
        """How many audits a filter finds, counted up to 10,000, and with `fdr` how many are supported. `as_of` says when that was worked out."""
        return read_answer(self._connection.get("/v1/listing", {**filters, "fdr": fdr}), ListingFacts)

    def bulk_preview(
        self, *, under: str | None = None, reviewer: str | None = None, **filters: Unpack[AuditFilters]
    ) -> BulkPreview:
        """How many audits of a filter can be put into a queue, tried again, or judged; nothing is changed.

        Args:
            under: Name of a bundle; `reauditable` says how many of the outputs can be audited under it too.
            reviewer: Whose verdicts are counted, where the service asks for no keys.
            **filters: Which audits; all where none is given.
        """
        asked = {**filters, "under": under, "reviewer": reviewer}
        return read_answer(self._connection.get("/v1/bulk", asked), BulkPreview)

    def requeue_all(self, **filters: Unpack[AuditFilters]) -> BulkResult:
        """Send abstained, rejected and dead audits of a filter back to the queue; call it again while `left` is not 0."""
        body = plain(filters) | {"action": BulkAction.REQUEUE.value}
        return self._send("/v1/bulk", body, BulkResult)

    def reaudit_all(self, under: str, **filters: Unpack[AuditFilters]) -> BulkResult:
        """Audit every output of a filter under another bundle too, by its name; the old answers stay. Call it again while `left` is not 0.

        Needs the scope `measure` too. Bundles of other models may be named: `compare_bundles` then meets the next model.
        """
        body = plain(filters) | {"action": BulkAction.REAUDIT.value, "under": under}
        return self._send("/v1/bulk", body, BulkResult)

    def judge_all(
        self,
        give: Verdict | str,
        *,
        comment: str = "",
        reviewer: str | None = None,
        **filters: Unpack[AuditFilters],
    ) -> BulkResult:
        """Give one verdict on every answered audit of a filter that the reviewer has not judged as a whole; call it again while `left` is not 0.

        Args:
            give: The verdict.
            comment: Why.
            reviewer: Who judges, where the service asks for no keys.
            **filters: Which audits; all where none is given.
        """
        asked = {"action": BulkAction.VERDICT.value, "give": Verdict(give).value, "comment": comment}
        return self._send("/v1/bulk", plain(filters) | asked, BulkResult, reviewer=reviewer)

    def take_back_all(self, *, reviewer: str | None = None, **filters: Unpack[AuditFilters]) -> BulkResult:
        """Take back the reviewer's verdicts on all audits of a filter as a whole; call it again while `left` is not 0."""
        body = plain(filters) | {"action": BulkAction.TAKE_BACK.value}
        return self._send("/v1/bulk", body, BulkResult, reviewer=reviewer)

    def views(self, *, reviewer: str | None = None) -> Records[SavedViewRecord]:
        """One's saved views of the list of audits."""
        return self._list("/v1/views", Page[SavedViewRecord], {"reviewer": reviewer})

    def save_view(
        self,
        name: str,
        *,
        reviewer: str | None = None,
        sort: str | None = None,
        **filters: Unpack[AuditFilters],
    ) -> SavedViewRecord:
        """Keep a list under a name; a view of that name is replaced. Times stay as they are written, so `today` stays today."""
        parameters = plain({**filters, "sort": sort})
        body = {"name": name, "parameters": parameters}
        return self._send("/v1/views", body, SavedViewRecord, reviewer=reviewer)

    def delete_view(self, view_id: int, *, reviewer: str | None = None) -> None:
        """Forget a view of one's own; `NotFound` where there is none."""
        query = "" if reviewer is None else f"?{urlencode({'reviewer': reviewer})}"
        self._connection.delete(f"/v1/views/{view_id:d}{query}")
