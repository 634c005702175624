"""Spans that stay in memory: OpenTelemetry's own provider and exporter, for the time of a test."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Exported:
    """What was exported so far."""

    def __init__(self) -> None:
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

        self.exporter = InMemorySpanExporter()

    def spans(self) -> Sequence["ReadableSpan"]:
        """All spans that have ended, in the order of their ends."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list["ReadableSpan"]:
        """Those with a name."""
        return [one for one in self.spans() if one.name == name]

    def names(self, trace_id: str) -> set[str]:
        """Names of the spans of a trace."""
        return {one.name for one in self.spans() if trace_of(one) == trace_id}


def trace_of(span: "ReadableSpan") -> str:
    """Id of a span's trace."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}"


def span_id_of(span: "ReadableSpan") -> str:
    """A span's own id."""
    context = span.get_span_context()
    assert context is not None
    return f"{context.span_id:016x}"


def linked_traces(span: "ReadableSpan") -> set[str]:
    """Ids of the traces that a span has links to."""
    return {f"{one.context.trace_id:032x}" for one in span.links}


@contextmanager
def exported_spans() -> Iterator[Exported]:
    """Everything that is begun within goes to memory; afterwards nobody sends traces, as before."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.util._once import Once

    found = Exported()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(found.exporter))
    trace.set_tracer_provider(provider)
    try:
        yield found
    finally:
        provider.shutdown()
        # OpenTelemetry lets a process set its provider once; there is no public way back.
        trace._TRACER_PROVIDER = None
        trace._TRACER_PROVIDER_SET_ONCE = Once()
