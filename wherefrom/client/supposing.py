"""The part of `Service` that asks what if: another answer in place of a flagged one, two audits side by side, and two bundles."""

from pydantic import ValidationError

from wherefrom.client.answers import read_answer
from wherefrom.client.reviewing import ReviewService
from wherefrom.errors import InvalidRequest
from wherefrom.frames import Records, Stream
from wherefrom.records import (
    BundleComparison,
    ComparedOutput,
    Comparison,
    HypotheticalRecord,
    HypotheticalRequest,
    IntakeResult,
    Page,
)
from wherefrom.records.explain import first_problem


class SupposingService(ReviewService):
    """What if the model had said something else? Needs `measure` to ask and `read` to read."""

    def suppose(
        self, audit_id: int, *, completion: str | None = None, preferred: str | None = None
    ) -> IntakeResult:
        """Queue an audit of what somebody supposes in place of a flagged output; answers with the id of its own audit.

        It is marked as hypothetical and counts nowhere. The same again gets the same ids.

        Args:
            audit_id: Audit of the flagged output.
            completion: Another answer; the flagged one where it is None.
            preferred: An acceptable answer that it is held against.

        Raises:
            NotFound: there is no such audit.
            InvalidRequest: nothing differs, the audit is of a group, or its text was erased.
        """
        try:
            asked = HypotheticalRequest(completion=completion, preferred=preferred)
        except ValidationError as error:
            raise InvalidRequest(first_problem(error)[1]) from error
        body = asked.model_dump_json(exclude_none=True).encode()
        answer = self._connection.post(f"/v1/audits/{audit_id:d}/hypotheticals", body)
        if answer.problem is not None:
            raise answer.problem.as_error()
        return read_answer(answer.body, IntakeResult)

    def hypotheticals(self, audit_id: int) -> Records[HypotheticalRecord]:
        """What was supposed in place of an audit's output, newest first; `NotFound` where there is no such audit."""
        return self._list(f"/v1/audits/{audit_id:d}/hypotheticals", Page[HypotheticalRecord])

    def compare(self, audit_id: int, other_audit_id: int) -> Comparison:
        """The citations of two audits side by side: which stayed, which are gone, which came."""
        path = f"/v1/audits/{audit_id:d}/comparison/{other_audit_id:d}"
        return read_answer(self._connection.get(path), Comparison)

    def compare_bundles(self, bundle: str, other: str) -> BundleComparison:
        """What changed between two bundles, by their names, over all outputs that both have answered for.

        A large comparison is worked out in the background: `progress` says how far it is, and `as_of` how old the summary.
        """
        asked = {"bundle": bundle, "other": other}
        return read_answer(self._connection.get("/v1/bundle-comparison", asked), BundleComparison)

    def compared_outputs(self, bundle: str, other: str, *, page_size: int = 100) -> Stream[ComparedOutput]:
        """The outputs that were compared, the largest change first; pages are fetched while the caller reads."""
        asked = {"bundle": bundle, "other": other}
        return self._pages("/v1/bundle-comparison/outputs", Page[ComparedOutput], asked, page_size)
