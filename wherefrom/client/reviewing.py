"""The desk's part of `Service`: review queues, verdicts, and their export."""

from typing import Unpack

from wherefrom.client.answers import read_answer
from wherefrom.client.filters import AuditFilters
from wherefrom.client.posting import Posts, plain
from wherefrom.frames import Records, Stream
from wherefrom.records import (
    Added,
    JudgedOutput,
    Page,
    QueueItem,
    QueueOrder,
    QueueSummary,
    ReviewRecord,
    Verdict,
)


class ReviewService(Posts):
    """What people do at the desk, as methods. Needs a key with the scope `review`, and `read` where it says so.

    `reviewer` is who judges where the service asks for no keys; with a key it is the person behind it, and is left out.
    """

    def review_queues(self) -> Records[QueueSummary]:
        """The review queues that the key may see, with what they hold."""
        return self._list("/v1/review-queues", Page[QueueSummary])

    def make_review_queue(
        self,
        name: str,
        *,
        by_hand: bool = False,
        order: QueueOrder | str = QueueOrder.OLDEST,
        reviewers: int = 1,
        dedupe: bool = True,
        blind: bool = False,
        **rule: Unpack[AuditFilters],
    ) -> QueueSummary:
        """Make a review queue; needs `read`.

        Args:
            name: Unique for ever.
            by_hand: Nothing enters by itself; the filters must be left out.
            order: In which order it is worked off.
            reviewers: How many people judge each audit, 1 to 5.
            dedupe: Let equal outputs in once.
            blind: Hide what was computed, and mix in training examples at random.
            **rule: Which audits enter by themselves; all where none is given. See `AuditFilters`.

        Raises:
            InvalidRequest: the name is taken, or a value cannot be used.
        """
        body = {
            "name": name,
            "rule": None if by_hand else plain(rule),
            "order": QueueOrder(order).value,
            "reviewers": reviewers,
            "dedupe": dedupe,
            "blind": blind,
        }
        return self._send("/v1/review-queues", body, QueueSummary)

    def review_items(self, queue_id: int, *, state: str = "open") -> Stream[QueueItem]:
        """The audits of a queue in its order; pages are fetched while the caller reads. Needs `read`."""
        path = f"/v1/review-queues/{queue_id:d}/items"
        return self._pages_after(path, Page[QueueItem], {"state": state}, lambda one: one.item_id)

    def put_into_review_queue(
        self,
        queue_id: int,
        *,
        assign_to: int | None = None,
        dry_run: bool = False,
        **filters: Unpack[AuditFilters],
    ) -> Added:
        """Put every audit of a filter into a queue; needs `read`.

        Args:
            queue_id: The queue.
            assign_to: Number of the person who judges what is new.
            dry_run: Only say how many match.
            **filters: Which audits; all where none is given.
        """
        body = plain(filters) | {"assign_to": assign_to, "dry_run": dry_run}
        return self._send(f"/v1/review-queues/{queue_id:d}/audits", body, Added)

    def next_review_item(self, queue_id: int, *, reviewer: str | None = None) -> QueueItem | None:
        """Take the next audit of a queue; None where nothing is left for the reviewer."""
        found = self._send(f"/v1/review-queues/{queue_id:d}/next", {}, Page[QueueItem], reviewer=reviewer)
        return found.items[0] if found.items else None

    def reviews(self, audit_id: int) -> Records[ReviewRecord]:
        """Everything that people found about an audit, oldest first; needs `read`."""
        return self._list(f"/v1/audits/{audit_id:d}/reviews", Page[ReviewRecord])

    def review(
        self,
        audit_id: int,
        verdict: Verdict | str | None = None,
        *,
        rank: int | None = None,
        comment: str = "",
        quote: str | None = None,
        part: str = "output",
        reviewer: str | None = None,
    ) -> ReviewRecord:
        """Give a verdict on an audit or a citation, comment, or both.

        Args:
            audit_id: The audit.
            verdict: What you find; None for a comment alone.
            rank: Rank of the citation; None for the audit as a whole.
            comment: Why.
            quote: Words that the comment is about; they must stand in the text.
            part: Where they stand: ``output`` or ``example``.
            reviewer: See the class.

        Raises:
            NotFound: there is no such audit or citation.
            InvalidRequest: the words do not stand in the text, or the audit has not ended.
        """
        body = {
            "rank": rank,
            "verdict": None if verdict is None else Verdict(verdict).value,
            "comment": comment,
            "quote": quote,
            "part": part,
        }
        return self._send(f"/v1/audits/{audit_id:d}/reviews", body, ReviewRecord, reviewer=reviewer)

    def undo_review(self, review_id: int, *, reviewer: str | None = None) -> ReviewRecord:
        """Take an entry of one's own back; nothing is deleted."""
        return self._send(f"/v1/reviews/{review_id:d}/undo", {}, ReviewRecord, reviewer=reviewer)

    def judged_outputs(self) -> Stream[JudgedOutput]:
        """Outputs with the blind verdicts that stand; needs `read`."""
        lines = self._connection.lines("/v1/verdicts.jsonl", {})
        return Stream(read_answer(line, JudgedOutput) for line in lines if line.strip())
