"""The part of `Service` that works review queues off: people, assignments, what is taken out, one item as a whole, agreement."""

from collections.abc import Sequence

from wherefrom.client.answers import read_answer
from wherefrom.client.posting import Posts
from wherefrom.frames import Records
from wherefrom.records import (
    Frozen,
    Page,
    PairAgreement,
    PersonProgress,
    PersonRecord,
    QueueItem,
    QueueSummary,
    ReviewRecord,
    Verdict,
    WorkItem,
)


class _Assigned(Frozen):
    """The answer to an assignment."""

    assigned: int


class QueueService(Posts):
    """Review queues at work, as methods. Needs a key with the scope `review`, and `read` for what is not one's own.

    `reviewer` is who judges where the service asks for no keys; with a key it is the person behind it, and is left out.
    """

    def people(self) -> Records[PersonRecord]:
        """People who can be given audits, by name."""
        return self._list("/v1/people", Page[PersonRecord])

    def review_item(self, queue_id: int, item_id: int, *, reviewer: str | None = None) -> WorkItem:
        """One audit of a queue with all that is needed to judge it; a reviewer's key suffices for what is theirs. `NotFound` for anything else."""
        body = self._connection.get(_item(queue_id, item_id), {"reviewer": reviewer})
        return read_answer(body, WorkItem)

    def judge_blind(
        self,
        queue_id: int,
        item_id: int,
        training_example_id: int,
        *,
        verdict: Verdict | str,
        reviewer: str | None = None,
    ) -> ReviewRecord:
        """Judge one training example of a blind item.

        Args:
            queue_id: The queue.
            item_id: The item.
            training_example_id: One of the `rows` of `review_item`.
            verdict: What you find.
            reviewer: See the class.

        Raises:
            NotFound: the item does not show this training example.
            InvalidRequest: the reviewer judged this audit with its scores in view before.
        """
        path = f"{_item(queue_id, item_id)}/blind/{training_example_id:d}"
        return self._send(path, {"verdict": Verdict(verdict).value}, ReviewRecord, reviewer=reviewer)

    def queue_people(self, queue_id: int) -> Records[PersonProgress]:
        """How far each person is with a queue."""
        return self._list(f"{_queue(queue_id)}/people", Page[PersonProgress])

    def add_queue_member(self, queue_id: int, person_id: int) -> Records[PersonProgress]:
        """Let somebody take audits of a queue by themselves; answers with how far everybody is."""
        found = self._send(f"{_queue(queue_id)}/people", {"person": person_id}, Page[PersonProgress])
        return Records(found.items)

    def assign_items(self, queue_id: int, person_id: int, *, items: Sequence[int] = (), most: int = 0) -> int:
        """Give somebody items of a queue; how many are new to them.

        Args:
            queue_id: The queue.
            person_id: Who gets them.
            items: Numbers of items.
            most: In their place, so many of the next items that too few people have.
        """
        body = {"person": person_id, "items": list(items), "most": most}
        return self._send(f"{_queue(queue_id)}/assign", body, _Assigned).assigned

    def unassign_item(self, queue_id: int, item_id: int, person_id: int) -> QueueItem:
        """Take an item off somebody who has not judged it; everybody may give back what is theirs."""
        return self._send(f"{_item(queue_id, item_id)}/unassign", {"person": person_id}, QueueItem)

    def remove_item(self, queue_id: int, item_id: int) -> QueueItem:
        """Take an audit out of a queue; it stays out."""
        return self._send(f"{_item(queue_id, item_id)}/remove", {}, QueueItem)

    def restore_item(self, queue_id: int, item_id: int) -> QueueItem:
        """Put an audit back that was taken out."""
        return self._send(f"{_item(queue_id, item_id)}/restore", {}, QueueItem)

    def fill_review_queue(self, queue_id: int) -> QueueSummary:
        """Apply the rule of a queue now."""
        return self._send(f"{_queue(queue_id)}/fill", {}, QueueSummary)

    def close_review_queue(self, queue_id: int) -> QueueSummary:
        """Let nothing more enter a queue; what is in it can still be judged."""
        return self._send(f"{_queue(queue_id)}/close", {}, QueueSummary)

    def agreement(self, queue_id: int | None = None) -> Records[PairAgreement]:
        """How far every two people agree who judged the same, in all or in one queue; most shared targets first."""
        return self._list("/v1/agreement", Page[PairAgreement], {"queue_id": queue_id})


def _queue(queue_id: int) -> str:
    return f"/v1/review-queues/{queue_id:d}"


def _item(queue_id: int, item_id: int) -> str:
    return f"{_queue(queue_id)}/items/{item_id:d}"
