"""Review queues worked off from the command line: by an auditor, by a reviewer with a key of their own, blind."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from db.access import keys
from tests.integration.client.conftest import Served
from tests.integration.client.test_cli import RunCommand, lines, run
from wherefrom.client import Service
from wherefrom.errors import Forbidden, NotFound

__all__ = ["run"]

COMPUTED = ("score", "top_source", "confidence", "rank", "influence")


@pytest.fixture
def ben(served: Served) -> str:
    """The key of a reviewer, who sees nothing but what is theirs."""
    return keys.create_key(served.database, "ben", ["review"])


@contextmanager
def key_of(monkeypatch: pytest.MonkeyPatch, key: str) -> Iterator[None]:
    """Run commands with somebody's key."""
    with monkeypatch.context() as patched:
        patched.setenv("WHEREFROM_API_KEY", key)
        yield


def test_a_queue_is_worked_off(
    run: RunCommand, served: Served, ben: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assigned, given back, taken out and put back, judged by a reviewer whose key reads nothing else, agreed on, closed."""
    assert run("queue-create", "refunds", "--reason", "refund_promise", "--reviewers", "2")[0] == 0
    items = [str(one["item_id"]) for one in lines(run("queue-items", "refunds", "--json")[1])]
    assert len(items) == 2
    assert run("queue-assign", "refunds", "--to", "ben", "--item", items[0])[1].startswith(
        "1 audits assigned to ben"
    )
    assert run("queue-assign", "refunds", "--to", "ben")[0] == 2
    assert "nobody has it" in run("queue-unassign", "refunds", items[0], "--from", "ben")[1]
    assert "removed" in run("queue-remove", "refunds", items[0])[1]
    assert "queue refunds holds" in run("queue-fill", "refunds")[1]
    assert [
        one["item_id"] for one in lines(run("queue-items", "refunds", "--state", "removed", "--json")[1])
    ] == [int(items[0])]
    assert "open" in run("queue-restore", "refunds", items[0])[1]
    with key_of(monkeypatch, ben):
        assert run("review-next", "refunds")[0] == 4, "a reviewer sees no queue of others"
    assert "member" in run("queue-people", "refunds", "--add", "ben")[1]
    with key_of(monkeypatch, ben):
        [taken] = lines(run("review-next", "refunds", "--json")[1])
        number = str(taken["audit"]["audit_id"])  # type: ignore[index]  # JSON
        assert "citations" in taken
        assert run("show", number)[0] == 2, "the key has no scope to read"
        assert run("review", number, "--verdict", "unrelated")[0] == 0
        assert run("queue-remove", "refunds", items[1])[0] == 2
    assert run("review-next", "refunds", "--as", "ann")[0] == 0
    assert run("review", number, "--verdict", "confirmed", "--as", "ann")[0] == 0
    [told] = lines(run("queue-people", "refunds", "--json")[1])[1:]
    assert (told["person"]["name"], told["finished"]) == ("ben", 1)  # type: ignore[index]  # JSON
    assert "is closed" in run("queue-close", "refunds")[1]
    assert (
        run("queue-items", "nothing")[0]
        == run("queue-assign", "refunds", "--to", "zoe", "--most", "1")[0]
        == 4
    )


def test_agreement_counts_what_was_judged_in_a_queue(run: RunCommand, served: Served) -> None:
    """Two people of one mind in a queue, and of two minds on an audit outside of it."""
    run("queue-create", "refunds", "--reason", "refund_promise", "--reviewers", "2")
    with Service(served.url) as service:
        [queue] = service.review_queues()
        items = list(service.review_items(queue.queue_id))
        for name in ("ann", "ben"):
            for item, verdict in zip(items, ("confirmed", "unrelated"), strict=True):
                taken = service.next_review_item(queue.queue_id, reviewer=name)
                assert taken is not None
                assert taken.item_id == item.item_id
                service.review(taken.audit.audit_id, verdict, reviewer=name)
        outside = next(one for one in service.audits(state="done", flag_reason="rude_tone"))
        service.review(outside.audit_id, "confirmed", reviewer="ann")
        service.review(outside.audit_id, "unrelated", reviewer="ben")
        [everywhere], [inside] = service.agreement(), service.agreement(queue.queue_id)
        assert (everywhere.pairs, everywhere.differing, everywhere.differing_audits) == (
            3,
            1,
            (outside.audit_id,),
        )
        assert (inside.pairs, inside.kappa, inside.differing) == (2, 1.0, 0)
        with pytest.raises(NotFound):
            service.agreement(999)
    assert re.search(r"ann and ben +2 +100 % +1\.00", run("agreement", "refunds")[1])
    assert "ann and ben" in run("agreement")[1]


def test_a_blind_queue_is_worked_off_without_scores(
    run: RunCommand, served: Served, ben: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output and training examples, nothing that was computed, neither before nor after a verdict."""
    run("queue-create", "sample", "--state", "done", "--blind")
    run("queue-people", "sample", "--add", "ben")
    with key_of(monkeypatch, ben):
        [work] = lines(run("review-next", "sample", "--json")[1])
        rows = [one["training_example_id"] for one in work["rows"]]  # type: ignore[attr-defined]  # JSON
        assert (work["detail"], len(rows)) == (None, 6)
        audit = work["item"]["audit"]  # type: ignore[index]  # JSON
        assert (audit["top_source"], audit["top_score"]) == (None, None)
        shown = run("review-next", "sample")[1]
        assert "wherefrom review-blind sample" in shown
        assert not any(word in shown for word in COMPUTED)
        item = str(work["item"]["item_id"])  # type: ignore[index]  # JSON
        [given] = lines(
            run("review-blind", "sample", item, str(rows[0]), "--verdict", "plausible", "--json")[1]
        )
        assert (given["blind"], given["rank"], given["reviewer"]) == (True, None, "ben")
        [again] = lines(run("review-next", "sample", "--json")[1])
        assert [one["mine"] for one in again["rows"]][:2] == ["plausible", None]  # type: ignore[attr-defined]  # JSON
    with Service(served.url, ben) as service, pytest.raises(Forbidden):
        service.people()
