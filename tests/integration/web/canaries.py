"""A second world beside the story, with a canary in every text of it: what somebody who is limited to the first must never be shown."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import JSON, Column, Enum, String, Text, cast, func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB
from starlette.testclient import TestClient

from db.measuring import measurements
from db.models import Base
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing import intake
from tests.integration.web import story
from tests.integration.web.sequel import group_story
from wherefrom.records import Method

CANARY = "canarytweety"
PRODUCER, MODEL, BUNDLE = f"{CANARY}-co", f"{CANARY}-model", f"{CANARY}-bundle"

#: Of nobody's outputs, or kept from change by triggers.
_LEFT = {"person", "producer", "api_key", "trail_event", "item_key", "schema_release", "service_lease"}
#: Texts that other parts find a row by.
_KEPT = {"sha256", "content_sha256", "text_sha256", "weights_sha256", "adapter_sha256", "tokenizer_sha256", "dedupe_key", "group_key",
         "key", "lease_owner", "producer", "model", "range_part", "event", "action", "form", "kind", "via"}  # fmt: skip
_JSON = {
    "turns": [{"role": "user", "content": CANARY}],
    "labels": {CANARY: CANARY},
    "card": {"form": CANARY, "note": CANARY},
    "rule": {"in_output": CANARY},
    "filter": {"in_output": CANARY},
    "parameters": {"in_output": CANARY},
    "fields": {CANARY: CANARY},
}

Newest = dict[str, int]


def newest(database: Database) -> Newest:
    """The largest number of each table."""
    found = {}
    with database.reading() as session:
        for table in Base.metadata.sorted_tables:
            if (key := _number(table)) is not None:
                found[table.name] = session.scalar(select(func.max(key))) or 0
    return found


def answer_story(database: Database) -> None:
    """Answer what waits in the story, so that nothing of it is newer than the other world."""
    queue = AuditQueue(database)
    while claim := queue.claim(1, limit=50, owner="w", lease_s=600):
        queue.finish(
            [Finished(one, story.attribution(one.record, story.corpus(60)), 0.1) for one in claim.audits]
        )


def add_other_world(client: TestClient, database: Database, *, model: str) -> list[int]:
    """Outputs of another producer with everything that the desk can do to them; their audits."""
    examples = [story.example(900 + row, "other_source", f"q {row}", f"a {row}") for row in range(12)]
    bundle_id = 1 if model == story.MODEL else story.add_bundle(database, examples, name=BUNDLE, model=model)
    records = [
        story.record(500 + number, model=model).model_copy(update={"completion": f"{CANARY} says {number}."})
        for number in range(3)
    ]
    results = intake.accept(database, records, producer=PRODUCER, channel="stream")
    mine = [one.audit_id for one in results if one.audit_id is not None]
    queue = AuditQueue(database)
    while claim := queue.claim(bundle_id, limit=50, owner="w", lease_s=600):
        answers = [Finished(one, story.attribution(one.record, examples), 0.1) for one in claim.audits]
        queue.finish(answers)
    _work_on(client, database, mine)
    return mine


def _work_on(client: TestClient, database: Database, mine: list[int]) -> None:
    for name, blind in ((f"{CANARY} open", False), (f"{CANARY} blind", True)):
        made = client.post("/v1/review-queues", json={"name": name, "blind": blind})
        assert made.status_code == 201, made.text
        queue = made.json()["queue_id"]
        put = client.post(f"/v1/review-queues/{queue}/audits", json={"in_output": CANARY})
        assert put.status_code == 200, put.text
        assert client.post(f"/v1/review-queues/{queue}/next?reviewer=ann").status_code == 200
    judged = client.post(
        f"/v1/audits/{mine[0]}/reviews?reviewer=ann", json={"verdict": "confirmed", "comment": CANARY}
    )
    assert judged.status_code == 201, judged.text
    supposed = client.post(f"/v1/audits/{mine[0]}/hypotheticals", json={"completion": f"No {CANARY}."})
    assert supposed.status_code == 202, supposed.text
    assert client.post("/v1/groups", json={"audits": mine[:2]}).status_code == 202
    assert client.post("/v1/fix-lists?reviewer=ann", json={"name": CANARY}).status_code == 201
    rows = {"action": "remove", "source": "other_source", "reason": CANARY}
    client.post("/v1/fix-lists/1/rows?reviewer=ann", json=rows)
    client.post("/v1/fix-lists/1/what-ifs", json={})
    view = {"name": CANARY, "parameters": {"in_output": CANARY}}
    assert client.post("/v1/views?reviewer=ann", json=view).status_code == 201
    measurements.request_measurement(
        database, audit_id=mine[0], rank=1, method=Method.REFIT, requested_by=CANARY
    )
    group_story(database)


def plant(database: Database, before: Newest) -> set[str]:
    """Put the canary into every text of every row that is newer; the columns, as ``table.column``."""
    planted = set()
    with database.writing() as session:
        for table in Base.metadata.sorted_tables:
            key = _number(table)
            if key is None or table.name in _LEFT:
                continue
            values = {column.name: value for column in table.columns for value in _value(column, key)}
            newer = key > before[table.name]
            if values and session.execute(update(table).where(newer).values(values)).rowcount:  # type: ignore[attr-defined] # a CursorResult
                planted |= {f"{table.name}.{name}" for name in values}
    return planted


def _number(table: Any) -> Any:
    """The column that grows with each row: its own number, or that of what it belongs to."""
    if "id" in table.columns:
        return table.columns["id"]
    keys = [column for column in table.primary_key.columns if not isinstance(column.type, String)]
    return keys[0] if keys else None


def _value(column: Column[Any], key: Any) -> Iterator[Any]:
    if column.foreign_keys or column.primary_key or column.name in _KEPT or isinstance(column.type, Enum):
        return
    if isinstance(column.type, JSON | JSONB):
        if column.name in _JSON:
            yield _JSON[column.name]
    elif isinstance(column.type, String | Text):
        yield literal(f"{CANARY} {column.name} ") + cast(key, String)
