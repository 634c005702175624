"""Spans are OpenTelemetry's where traces are sent, and nothing at all elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from tests.exported import Exported, linked_traces, trace_of
from wherefrom.errors import OutOfMemory
from wherefrom.spans import current_traceparent, open_span, span, spans_of_each
from wherefrom.trace_settings import TraceExport, read_trace_export
from wherefrom.traceparent import trace_id_of

ROOT = Path(__file__).parents[2]
ONE, OTHER = (f"00-{digit * 32}-{digit * 16}-01" for digit in "ab")


@pytest.mark.parametrize(
    ("code", "nothing_of"),
    [
        ("import wherefrom.client", "opentelemetry"),
        ("import tasks.hint, tasks.measure, db.storing.intake", "opentelemetry"),
        ("from worker.vitals.traces import start_traces; start_traces('worker').close()", "opentelemetry"),
        (
            "from wherefrom.spans import span\nwith span('work', links=['x'], audits=3) as one: one.set(a=1)",
            "opentelemetry",
        ),
        # redis-py imports the metrics of an SDK that is installed, and FastAPI the interface; neither sends anything.
        ("import worker.processes, worker.web_server", "opentelemetry.sdk.trace"),
    ],
)
def test_nothing_is_imported_where_no_traces_are_sent(code: str, nothing_of: str) -> None:
    """The extra is installed here, and still costs nothing until an OTEL_* variable asks for it."""
    program = f"{code}\nimport sys\nprint([one for one in sys.modules if one.startswith({nothing_of!r})])"
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_trace_passes_through_where_no_spans_are_made() -> None:
    """Who sends no traces still hands on what came in, and its log lines carry the trace."""
    assert current_traceparent() is None
    with span("request", parent=ONE) as outer:
        assert outer.traceparent == ONE
        with span("inner") as inner:
            assert inner.traceparent == current_traceparent() == ONE
            assert structlog.contextvars.get_contextvars()["trace_id"] == trace_id_of(ONE)
        with spans_of_each("accept", [None, OTHER]) as goes_on:
            assert goes_on == [ONE, OTHER]
    assert current_traceparent() is None
    assert "trace_id" not in structlog.contextvars.get_contextvars()


def test_spans_stand_under_their_parents(exported: Exported) -> None:
    """A given parent, the present span, and links to other traces only."""
    with span("outer", parent=ONE, links=[ONE, OTHER], bundle_id=7, none=None) as outer:
        with span("inner"):
            open_span("late", started_ns=5).end()
        assert current_traceparent() == outer.traceparent != ONE
    late, inner, top = exported.spans()
    assert {trace_of(one) for one in (late, inner, top)} == {trace_id_of(ONE)}
    assert top.parent is not None
    assert f"{top.parent.span_id:016x}" == ONE.split("-")[2]
    assert inner.parent == top.get_span_context()
    assert (late.parent, late.start_time) == (inner.get_span_context(), 5)
    assert dict(top.attributes or {}) == {"wherefrom.bundle_id": 7}
    assert linked_traces(top) == {trace_id_of(OTHER)}


def test_things_that_are_done_together_keep_their_own_traces(exported: Exported) -> None:
    """What came with the present trace goes on under the present span; each other one gets a span in its own."""
    with span("request", parent=ONE) as request, spans_of_each("accept", [ONE, OTHER, None]) as goes_on:
        pass
    (accepted,) = exported.named("accept")
    assert trace_of(accepted) == trace_id_of(OTHER)
    assert goes_on[0] == goes_on[2] == request.traceparent
    assert goes_on[1] is not None
    assert trace_id_of(goes_on[1]) == trace_id_of(OTHER)


@pytest.mark.parametrize(
    ("error", "told"), [(OutOfMemory("of a SECRET text"), "out_of_memory"), (KeyError("SECRET"), "KeyError")]
)
def test_a_failure_tells_its_code_and_no_message(exported: Exported, error: Exception, told: str) -> None:
    """An error may quote an output; a collector gets its code or its kind."""
    with pytest.raises(type(error)), span("pass"):
        raise error
    (failed,) = exported.spans()
    assert failed.status.description == told
    assert not failed.status.is_ok
    assert "SECRET" not in failed.to_json()


def test_what_was_not_sampled_is_not_recorded(exported: Exported) -> None:
    """The producer decided; the decision goes on with the trace."""
    unsampled = ONE.removesuffix("01") + "00"
    with span("request", parent=unsampled) as request:
        assert request.traceparent is not None
        assert request.traceparent.endswith("-00")
    assert not exported.spans()


@pytest.mark.parametrize(
    ("variables", "asked"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, TraceExport()),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, TraceExport()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, TraceExport()),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, None),
        ({"OTEL_SERVICE_NAME": "audits"}, None),
    ],
)
def test_the_variables_ask_for_traces(variables: dict[str, str], asked: TraceExport | None) -> None:
    """OpenTelemetry's own variables decide, as they do for every other program."""
    assert read_trace_export(variables) == asked


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "4318"),
    ],
)
def test_what_cannot_be_done_is_said(variables: dict[str, str], told: str) -> None:
    """A collector that would never get anything is no silent matter."""
    found = read_trace_export(variables)
    assert found is not None
    assert told in (found.problem or "")
