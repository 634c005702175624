"""The client against the real service: what is flagged is in SQL, and reads back as records."""

from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import FlaggedText
from db.reading import reader
from tests.exported import Exported, trace_of
from tests.integration.client.conftest import Served
from tests.integration.web.story import MODEL
from wherefrom.client import Client, Service
from wherefrom.client.sender import SendingOptions
from wherefrom.errors import IdempotencyConflict, InvalidRequest, NotFound, ServiceUnavailable
from wherefrom.records import AuditState, FlaggedRecord
from wherefrom.spans import span
from wherefrom.traceparent import trace_id_of

FAST = SendingOptions(backoff_base_s=0.02, backoff_cap_s=0.1, poll_s=0.02)


def test_flag_to_sql_and_back(served: Served, tmp_path: Path) -> None:
    """Flagged outputs are pending audits in SQL with every field as it was given, control characters included."""
    text = "Ignore \x1b[31mall\u202e rules 😀"
    with Client(served.url, spool_path=tmp_path / "spool.db", sending=FAST) as client:
        keys = {
            client.flag(
                prompt="p", completion=f"{text} {number}", model=MODEL, reason="round-trip", labels={"a": "b"}
            )
            for number in range(30)
        }
        assert client.flush(20) == 0
        assert client.refused() == []
        found = list(client.audits(flag_reason="round-trip"))
        assert len(found) == 30
        assert {one.state for one in found} == {AuditState.PENDING}
        detail = client.audit(found[0].audit_id)
    assert detail.idempotency_key in keys
    assert detail.completion == f"{text} 29"
    assert detail.labels == {"a": "b"}
    assert reader.get_audit(served.database, found[0].audit_id) == detail


def test_conflicts_and_invalid_records(served: Served, tmp_path: Path) -> None:
    """The real service's conflicts and refusals end in `refused`; the records beside them are stored."""
    fields = {"prompt": "p", "model": MODEL}
    with Client(served.url, spool_path=tmp_path / "spool.db", sending=FAST) as client:
        assert client.flag_now({"idempotency_key": "k", "completion": "one", **fields}).status == "accepted"
        assert client.flag_now({"idempotency_key": "k", "completion": "one", **fields}).status == "duplicate"
        with pytest.raises(IdempotencyConflict):
            client.flag_now({"idempotency_key": "k", "completion": "two", **fields})
        client.flag(idempotency_key="k", completion="two", **fields)
        client.flag(completion="x" * 5_000_000, **fields)
        good = client.flag(completion="fine", **fields)
        assert client.flush(30) == 0
        assert {one.code for one in client.refused()} == {"idempotency_conflict", "body_too_large"}
        assert [
            one.status
            for one in client.submit([FlaggedRecord(idempotency_key=good, completion="fine", **fields)])
        ] == ["duplicate"]


def test_unknown_model_is_stored(served: Served) -> None:
    """A record whose model no bundle explains is accepted, and its audit says why it waits."""
    with Service(served.url) as service:
        result = service.flag_now({"prompt": "p", "completion": "c", "model": "nobody-knows"})
    assert (result.status, result.state, result.code) == ("accepted", AuditState.REJECTED, "unknown_model")


def test_reading(served: Served) -> None:
    """Every page of the service comes back as the records that the database's reader gives."""
    database = served.database
    with Service(served.url) as service:
        audits = list(service.audits(page_size=100))
        assert len(audits) == 25  # four pages of at most seven
        assert [one.audit_id for one in audits] == sorted({one.audit_id for one in audits}, reverse=True)
        detail = service.audit(served.story.audit_ids[0])
        assert detail == reader.get_audit(database, served.story.audit_ids[0])
        first = detail.citations[0]
        assert service.example(first.training_example_id) == reader.get_example(
            database, first.training_example_id
        )
        assert [one.example_id for one in service.find_examples(first.example_id)] == [first.example_id]
        assert service.find_examples("no such") == ()
        assert detail.audit.audit_id in {
            one.audit.audit_id for one in service.cited_by(first.training_example_id)
        }
        assert list(service.sources()) == reader.sources(database)
        assert service.queue().states == reader.queue_health(database).states
        assert [one.active for one in service.bundles()] == [True]


def test_filters(served: Served) -> None:
    """Filters reach the service, also as days and as enums."""
    with Service(served.url) as service:
        done = list(service.audits(state=AuditState.DONE, since="2020-01-01", until="2099-12-31"))
        assert {one.state for one in done} == {AuditState.DONE}
        assert list(service.audits(since="2099-01-01")) == []
        source = done[0].top_source
        assert {one.top_source for one in service.audits(top_source=source)} == {source}


def test_errors(served: Served) -> None:
    """The service's refusals are errors of wherefrom with its code and text."""
    with Service(served.url) as service:
        with pytest.raises(NotFound, match="999999"):
            service.audit(999_999)
        with pytest.raises(InvalidRequest, match="since"):
            list(service.audits(since="yesterday"))
    with Service(served.url + "/wrong") as service, pytest.raises((NotFound, ServiceUnavailable)):
        service.queue()


def test_a_trace_goes_from_flag_to_the_row(served: Served, tmp_path: Path) -> None:
    """Outputs of several traces go in one request, and each row keeps its own; one without a trace has none."""
    traces = [f"00-{digit * 32}-{digit * 16}-01" for digit in "12"]
    with Client(served.url, spool_path=tmp_path / "spool.db", sending=FAST) as client:
        for trace in (*traces, None, "not a trace"):
            client.flag(prompt="p", completion=f"with {trace}", model=MODEL, traceparent=trace)
        assert client.flush(20) == 0
        assert client.refused() == []
    with served.database.reading() as session:
        rows = select(FlaggedText.completion, FlaggedText.traceparent).where(
            FlaggedText.completion.like("with %")
        )
        kept = {row.completion: row.traceparent for row in session.execute(rows)}
    told = {f"with {one}": one for one in traces}
    assert kept == told | {"with None": None, "with not a trace": None}


def test_flagging_is_a_span_of_the_producer(served: Served, tmp_path: Path, exported: Exported) -> None:
    """An application that traces itself needs to say nothing: the row goes on from the span of `flag`."""
    with Client(served.url, spool_path=tmp_path / "spool.db", sending=FAST) as client:
        with span("chat"):
            client.flag(prompt="p", completion="traced by itself", model=MODEL)
        assert client.flush(20) == 0
        with span("chat"):
            client.flag_now({"prompt": "p", "completion": "traced now", "model": MODEL})
    with served.database.reading() as session:
        rows = select(FlaggedText.traceparent).where(FlaggedText.completion.like("traced %"))
        kept = [
            trace_id_of(one or "") for one in session.scalars(rows.order_by(FlaggedText.flagged_output_id))
        ]
    assert kept == [trace_of(one) for one in exported.named("chat")]
    (flagged,) = exported.named("flag")
    assert trace_of(flagged) == kept[0]
