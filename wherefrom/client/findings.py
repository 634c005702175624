"""The part of `Service` about findings: flagged outputs that say the same kind of thing."""

from collections.abc import Iterable, Mapping

from wherefrom.client.answers import read_answer
from wherefrom.client.posting import Posts
from wherefrom.frames import Stream
from wherefrom.records import FindingDetail, FindingSummary, IntakeResult, Page


class FindingService(Posts):
    """Findings as methods. Reading needs the scope `read`, changing `review` as well, asking `measure`.

    `reviewer` is who decides where the service asks for no keys; with a key it is the person behind it, and is left out.
    """

    def findings(self, *, bundle: str | None = None) -> Stream[FindingSummary]:
        """The findings, those with the most outputs first; pages are fetched while the caller reads.

        Args:
            bundle: Only those under the bundle of this name. Each bundle has findings of its own.
        """
        return self._pages("/v1/findings", Page[FindingSummary], {"bundle": bundle})

    def finding(self, finding_id: int) -> FindingDetail:
        """One finding with its culprits, related findings and history; `NotFound` where there is none.

        The number of one that went into another finding leads there.
        """
        return read_answer(self._connection.get(f"/v1/findings/{finding_id:d}"), FindingDetail)

    def rename_finding(self, finding_id: int, title: str, *, reviewer: str | None = None) -> FindingSummary:
        """Give a finding a title; an empty one gives it its telling words back."""
        return self._change(finding_id, "title", {"title": title}, reviewer)

    def merge_finding(self, finding_id: int, into: int, *, reviewer: str | None = None) -> FindingSummary:
        """Let a finding go into another one of the same bundle, which is the answer.

        Raises:
            InvalidRequest: they are one already, or of two bundles.
        """
        return self._change(finding_id, "merge", {"into": into}, reviewer)

    def take_out_finding(self, finding_id: int, *, reviewer: str | None = None) -> FindingSummary:
        """Let a finding that went into another one stand by itself again."""
        return self._change(finding_id, "take-out", {}, reviewer)

    def split_finding(
        self, finding_id: int, audit_ids: Iterable[int], *, title: str = "", reviewer: str | None = None
    ) -> FindingSummary:
        """Let outputs, named by their audits, leave a finding for a new one, which is the answer.

        Raises:
            NotFound: one of them does not stand in it.
            InvalidRequest: nothing would be left.
        """
        body = {"audit_ids": list(audit_ids), "title": title}
        return self._change(finding_id, "split", body, reviewer)

    def ask_finding(self, finding_id: int) -> IntakeResult:
        """Ask one question about the newest 256 outputs of a finding: what taught the model what they share?"""
        return self._send(f"/v1/findings/{finding_id:d}/ask", {}, IntakeResult)

    def _change(
        self, finding_id: int, what: str, body: Mapping[str, object], reviewer: str | None
    ) -> FindingSummary:
        return self._send(f"/v1/findings/{finding_id:d}/{what}", body, FindingSummary, reviewer=reviewer)
