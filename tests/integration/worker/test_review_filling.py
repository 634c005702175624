"""The sweeper lets answered audits into review queues by their rules."""

from db import review_queues, review_work
from db.audit_queue import AuditQueue, Finished
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
