"""The sweeper lets answered audits into review queues by their rules, and groups outputs into findings."""

from db.grouping import findings
from db.queues.audit_queue import AuditQueue, Finished
from db.reviewing import review_queues, review_work
from tests.integration.db.builders import accept, attribution, record
from tests.integration.worker.conftest import register_bundle
from wherefrom.records import AuditFilter, QueueDraft


def test_the_sweeper_fills_review_queues(parts):
    """What is answered enters with the next look; what waits or was refused does not."""
    database = parts.database
    bundle_id = register_bundle(database, name="b", model="support-7")
    queue_id = review_queues.create_queue(
        database, QueueDraft(name="all", rule=AuditFilter()), created_by=None
    )
    [answered, _, _] = accept(database, record(1), record(2), record(3, model="nobody's"))
    sweeper = parts.sweeper()
    sweeper.step()
    assert review_work.list_items(database, queue_id) == []
    claim = AuditQueue(database).claim(bundle_id, limit=1, owner="w", lease_s=60)
    assert claim is not None
    AuditQueue(database).finish([Finished(claim.audits[0], attribution(), 0.1)])
    for _ in range(5):
        sweeper.step()
    assert [one.audit.audit_id for one in review_work.list_items(database, queue_id)] == [answered.audit_id]


def test_the_sweeper_groups_outputs_into_findings(parts):
    """Three that are alike are one finding, named, after as many rounds as a queue waits."""
    database = parts.database
    bundle_id = register_bundle(database, name="b", model="support-7")
    accept(database, *(record(number, completion="A refund, always.") for number in range(3)))
    claim = AuditQueue(database).claim(bundle_id, limit=3, owner="w", lease_s=60)
    assert claim is not None
    answer = attribution(vector=b"\x7f\x01")
    AuditQueue(database).finish([Finished(one, answer, 0.1) for one in claim.audits])
    sweeper = parts.sweeper()
    for _ in range(5):
        sweeper.step()
    [found] = findings.list_findings(database).items
    assert (found.outputs, set(found.words)) == (3, {"always", "refund"})
