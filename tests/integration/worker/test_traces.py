"""One trace from the producer to the commit: over HTTP, over the stream, through the row of the database, to the worker and the measurer."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
import structlog
from sqlalchemy import select
from starlette.testclient import TestClient

from db.erasure import erasing
from db.measuring import measurements
from db.models import Audit, FlaggedText
from db.session import Database
from db.storing import intake
from tasks.hint import work_hint
from tasks.measure import work_measure_hint
from tests.exported import Exported, exported_spans, linked_traces, span_id_of, trace_of
from tests.integration.worker.conftest import MODEL, Parts
from tests.overlap_engine import OverlapEngine
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.messages import RECORD_FIELD
from wherefrom.records import AuditState, FlaggedRecord, MeasurementState, Method
from wherefrom.settings import Settings
from wherefrom.traceparent import TRACEPARENT, TRACEPARENTS, trace_id_of
from worker.broker.redis_link import flagged_stream, rejected_stream
from worker.flagged_stream.replay import Kept, KeptEntries
from worker.pool.measurer_runtime import MeasurerRuntime
from worker.pool.runtime import Runtime

pytestmark = pytest.mark.redis

ONE, TWO = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
#: What stands in these outputs and must stand in no span: texts, names of people, keys that producers chose.
PRIVATE = ("refunds take ten days", "PRIVATEPROMPT", "ann@example.com", "chat-of-ann", "PRIVATEREASON")
WORKED = {"batch", "claim", "attribute", "store", "audit"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Traces cross the database in a column that is the same on both engines."""
    return sqlite_url


@pytest.fixture
def web(settings: Settings, parts: Parts) -> TestClient:
    """The web application over the same database."""
    made = settings.model_copy(update={"trail_reads": "off", "recipe": settings.state_dir / "recipe.json"})
    app = create_app(made, parts.database, metrics=parts.metrics, queue=SilentProbe())
    return TestClient(app, base_url="http://127.0.0.1:8077")


@pytest.fixture
def work(settings: Settings, parts: Parts, bundle_id: int) -> Callable[[], object]:
    """Works off one hint, as a pool process does."""
    return lambda: work_hint({"bundle_id": bundle_id}, runtime_of(settings, parts))


def runtime_of(settings: Settings, parts: Parts) -> Runtime:
    """What a pool process holds."""
    return Runtime(
        settings,
        database=parts.database,
        hints=parts.hints("task"),
        metrics=parts.metrics,
        engine=OverlapEngine(settings),
    )


def record(number: int = 0, **more: object) -> dict[str, object]:
    """A flagged output full of what is nobody's business."""
    return {
        "idempotency_key": f"chat-of-ann-{number}",
        "prompt": "PRIVATEPROMPT",
        "completion": f"refunds take ten days {number}",
        "model": MODEL,
        "reason": "PRIVATEREASON",
        "labels": {"user": "ann@example.com"},
    } | more


def kept(database: Database) -> list[str | None]:
    """What the rows hold, oldest first."""
    with database.reading() as session:
        query = select(FlaggedText.traceparent).order_by(FlaggedText.flagged_output_id)
        return list(session.scalars(query))


def states(database: Database) -> set[AuditState]:
    """States of all audits."""
    with database.reading() as session:
        return set(session.scalars(select(Audit.state)))


def test_one_trace_from_the_request_to_the_commit(
    web: TestClient, work: Callable[[], object], database: Database, exported: Exported
) -> None:
    """Request, claim, pass and commit are one trace, that of the producer, and tell nothing of what was said."""
    answer = web.post("/v1/flagged", json=record(), headers={TRACEPARENT: ONE})
    assert answer.status_code == 202
    work()
    assert states(database) == {AuditState.DONE}
    assert {trace_of(one) for one in exported.spans()} == {trace_id_of(ONE)}
    assert exported.names(trace_id_of(ONE)) == {"POST /v1/flagged", *WORKED}
    (request,), (batch,), (audit,) = map(exported.named, ("POST /v1/flagged", "batch", "audit"))
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == ONE.split("-")[2]
    assert batch.parent is not None
    assert f"{batch.parent.span_id:016x}" == span_id_of(request)
    assert (audit.attributes or {})["wherefrom.outcome"] == "done"
    (store,) = exported.named("store")
    assert audit.end_time is not None
    assert store.end_time is not None
    assert audit.end_time >= store.end_time
    told = " ".join(one.to_json() for one in exported.spans())
    assert not [one for one in PRIVATE if one in told]


def test_one_trace_from_the_stream_to_the_commit(  # noqa: PLR0917 - fixtures
    client: redis.Redis,
    settings: Settings,
    parts: Parts,
    work: Callable[[], object],
    exported: Exported,
) -> None:
    """The entry's field `traceparent` is what the header is over HTTP."""
    sent = FlaggedRecord.model_validate(record()).model_dump_json(by_alias=True)
    client.xadd(flagged_stream(settings), {RECORD_FIELD: sent, TRACEPARENT: ONE})
    parts.intake().step()
    work()
    assert states(parts.database) == {AuditState.DONE}
    assert exported.names(trace_id_of(ONE)) == {"accept", *WORKED}
    assert {trace_of(one) for one in exported.spans()} == {trace_id_of(ONE)}


def test_a_batch_of_several_traces_has_links(
    web: TestClient, work: Callable[[], object], exported: Exported
) -> None:
    """One pass serves outputs of two producers: it has a trace of its own with links to theirs, and each audit's span stands in its own with a link back."""
    sent = {"records": [record(1), record(2)]}
    assert web.post("/v1/flagged", json=sent, headers={TRACEPARENTS: f"{ONE},{TWO}"}).status_code == 202
    work()
    (batch,) = exported.named("batch")
    assert batch.parent is None
    both = {trace_id_of(ONE), trace_id_of(TWO)}
    assert linked_traces(batch) == both
    (attributed,) = exported.named("attribute")
    assert linked_traces(attributed) == both
    assert exported.names(trace_of(batch)) == WORKED - {"audit"}
    audits = {trace_of(one): one for one in exported.named("audit")}
    assert set(audits) == both
    assert all(linked_traces(one) == {trace_of(batch)} for one in audits.values())
    assert exported.names(trace_id_of(ONE)) == exported.names(trace_id_of(TWO)) == {"accept", "audit"}


def test_an_output_without_a_trace_gets_into_no_other(
    work: Callable[[], object], database: Database, exported: Exported
) -> None:
    """It is worked beside one that has a trace, and that trace tells nothing of it."""
    records = [FlaggedRecord.model_validate(record(number)) for number in (1, 2)]
    intake.accept(database, records, producer="p", channel="stream", traces=[ONE, None])
    work()
    (batch,) = exported.named("batch")
    assert batch.parent is None
    assert linked_traces(batch) == {trace_id_of(ONE)}
    assert exported.names(trace_id_of(ONE)) == {"accept", "audit"}
    assert [(one.attributes or {})["wherefrom.audit_id"] for one in exported.named("audit")] == [1, 2]


def test_audits_that_were_claimed_ahead_get_into_no_other_trace(
    settings: Settings, parts: Parts, bundle_id: int, exported: Exported
) -> None:
    """A batch that others may follow has a trace of its own, even where its first audits are of one trace."""
    records = [FlaggedRecord.model_validate(record(number)) for number in (1, 2)]
    intake.accept(parts.database, records, producer="p", channel="stream", traces=[ONE, TWO])
    work_hint({"bundle_id": bundle_id}, runtime_of(settings.model_copy(update={"batch_audits": 1}), parts))
    (batch,) = exported.named("batch")
    assert batch.parent is None
    assert linked_traces(batch) == {trace_id_of(ONE)}
    for trace in (ONE, TWO):
        assert exported.names(trace_id_of(trace)) == {"accept", "audit"}


def test_a_failed_audit_tells_its_code(
    web: TestClient,
    work: Callable[[], object],
    exported: Exported,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the engine raised may quote the output: the trace holds the kind of the error, and that the audit is dead."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("refunds take ten days")

    monkeypatch.setattr("tests.overlap_engine.OverlapAttributor.attribute", fail)
    web.post("/v1/flagged", json=record(), headers={TRACEPARENT: ONE})
    work()
    (audit,), (attributed,) = exported.named("audit"), exported.named("attribute")
    assert (audit.attributes or {})["wherefrom.outcome"] == "dead"
    assert not audit.status.is_ok
    assert attributed.status.description == "ValueError"
    assert not [one for span in exported.spans() for one in PRIVATE if one in span.to_json()]


def test_a_measurement_goes_on_with_the_trace_of_its_output(  # noqa: PLR0917 - fixtures
    web: TestClient,
    work: Callable[[], object],
    settings: Settings,
    parts: Parts,
    bundle_id: int,
) -> None:
    """Days later the trace still says which output an effect was measured on."""
    web.post("/v1/flagged", json=record(), headers={TRACEPARENT: ONE})
    work()
    measurements.request_measurement(
        parts.database, audit_id=1, rank=1, method=Method.REFIT, requested_by="ann@example.com"
    )
    runtime = MeasurerRuntime(
        settings,
        database=parts.database,
        hints=parts.measure_hints(),
        metrics=parts.metrics,
        engine=OverlapEngine(settings),
    )
    with exported_spans() as exported:
        assert work_measure_hint({"bundle_id": bundle_id}, runtime) is MeasurementState.DONE
    assert exported.names(trace_id_of(ONE)) == {"measure", "store"}
    (measured,) = exported.named("measure")
    assert (measured.attributes or {})["wherefrom.outcome"] == "done"
    assert not [one for span in exported.spans() for one in PRIVATE if one in span.to_json()]


def test_a_trace_passes_through_a_service_that_sends_none(
    web: TestClient, work: Callable[[], object], database: Database
) -> None:
    """Without OpenTelemetry the row holds what came in, the log lines of the work carry it, and an erasure takes it."""
    web.post("/v1/flagged", json=record(), headers={TRACEPARENT: ONE})
    assert kept(database) == [ONE]
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        work()
    worked = next(one for one in lines if one["event"] == "batch_worked")
    assert worked["trace_id"] == trace_id_of(ONE)
    with database.writing() as session:
        assert erasing.erase_outputs(session, [1], by="request") == 1
    assert kept(database) == []


@pytest.mark.parametrize(
    "header",
    ["00-zz-1-01", "x" * 5000, f"{ONE}\x00", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'A' * 32}-{'1' * 16}-01"],
)
def test_a_hostile_header_is_dropped(web: TestClient, database: Database, header: str) -> None:
    """The output is stored all the same, without a trace."""
    answer = web.post("/v1/flagged", json=record(), headers={TRACEPARENT: header})
    assert answer.status_code == 202
    assert kept(database) == [None]


def test_two_headers_are_none(web: TestClient, database: Database) -> None:
    """Nobody can say which of them is true."""
    web.post("/v1/flagged", json=record(), headers=[(TRACEPARENT, ONE), (TRACEPARENT, TWO)])
    assert kept(database) == [None]


def test_an_entry_that_is_taken_back_keeps_its_trace(
    client: redis.Redis, settings: Settings, parts: Parts
) -> None:
    """The rejected stream and the way back hold the field."""
    client.xadd(flagged_stream(settings), {RECORD_FIELD: "no JSON", TRACEPARENT: ONE})
    parts.intake().step()
    assert client.xlen(rejected_stream(settings)) == 1
    KeptEntries(client, settings).take_back([Kept.REJECTED], None)
    again: Any = client.xrange(flagged_stream(settings))
    assert [fields[TRACEPARENT.encode()] for _, fields in again] == [ONE.encode()]


def test_groups_and_what_is_supposed_belong_to_the_trace_of_their_request(
    web: TestClient, database: Database
) -> None:
    """They are rows of their own, so they keep a trace of their own."""
    web.post("/v1/flagged", json=record(), headers={TRACEPARENT: ONE})
    assert web.post("/v1/groups", json={"audits": [1]}, headers={TRACEPARENT: TWO}).status_code == 202
    asked = web.post(
        "/v1/audits/1/hypotheticals", json={"completion": "something else"}, headers={TRACEPARENT: TWO}
    )
    assert asked.status_code in {201, 202}, asked.text
    assert kept(database) == [ONE, TWO, TWO]
