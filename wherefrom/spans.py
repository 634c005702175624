"""Spans of OpenTelemetry, where the process sends traces; else nothing happens, and nothing is imported.

The provider is OpenTelemetry's own: `worker.vitals.traces` sets it up from the OTEL_* variables, an application that uses our client sets up its own. A process in
which nobody imported OpenTelemetry has no spans; the traceparent that came in still goes on with the work, so that the next process finds it. Attributes hold
ids of rows, sizes and codes, never a text, a name of a person or the message of an error.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import structlog

from wherefrom.traceparent import trace_id_of, traceparent_of
from wherefrom.version import __version__

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

#: What an attribute may hold.
Value = str | int | float | bool
_PREFIX = "wherefrom."
#: Module of OpenTelemetry's interface; FastAPI imports it too.
_API = "opentelemetry.trace"
#: Most links of one span, as OpenTelemetry's own limit.
_MOST_LINKS = 128
#: Where the trace of the present work goes on, also where no spans are made.
_PRESENT: ContextVar[str | None] = ContextVar("wherefrom_traceparent", default=None)


class Kind(StrEnum):
    """Which end of a call or a queue a span stands for."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class OpenSpan:
    """A span that has begun; one of nothing where no traces are sent."""

    def __init__(self, span: "Span | None", traceparent: str | None) -> None:
        #: OpenTelemetry's own; None where no traces are sent.
        self.made = span
        #: How others go on from here; without traces, what was given as the parent.
        self.traceparent = traceparent

    def call(self, name: str) -> None:
        """Give it a name that is known later."""
        if self.made is not None:
            self.made.update_name(name)

    def set(self, **attributes: Value | None) -> None:
        """Set attributes; those that are None are left out."""
        if self.made is not None:
            self.made.set_attributes(_named(attributes))

    def fail(self, code: str) -> None:
        """Mark it as failed, by a stable code."""
        if self.made is not None:
            api = sys.modules[_API]
            self.made.set_status(api.Status(api.StatusCode.ERROR, code))

    def fail_with(self, outcome: object) -> None:
        """Mark it as failed where the outcome is an error: by its code or its kind, never by its message."""
        if isinstance(outcome, Exception):
            self.fail(str(getattr(outcome, "code", type(outcome).__name__)))

    def end(self) -> None:
        """End it now."""
        if self.made is not None:
            self.made.end()


def open_span(
    name: str,
    *,
    parent: str | None = None,
    links: Sequence[str] = (),
    kind: Kind = Kind.INTERNAL,
    started_ns: int | None = None,
    **attributes: Value | None,
) -> OpenSpan:
    """Begin a span that the caller ends, and that nothing stands under by itself.

    Args:
        name: What is done.
        parent: A traceparent; without one, it stands under the present span.
        links: Traceparents that it has to do with; those of its own trace say nothing and are left out.
        kind: Which end it stands for.
        started_ns: When it began, nanoseconds since 1970; now where None.
        attributes: Ids, sizes and codes; their names get the prefix `wherefrom.`.
    """
    tracer = _tracer()
    if tracer is None:
        return OpenSpan(None, parent or current_traceparent())
    api = sys.modules[_API]
    above = parent or current_traceparent()
    others = [one for one in links if above is None or trace_id_of(one) != trace_id_of(above)]
    span = tracer.start_span(
        name,
        context=None if parent is None else api.set_span_in_context(_remote(parent)),
        kind=api.SpanKind[kind.name],
        attributes=_named(attributes),
        links=[api.Link(_remote(one).get_span_context()) for one in others[:_MOST_LINKS]],
        start_time=started_ns,
    )
    return OpenSpan(span, _traceparent(span) or parent)


@contextmanager
def span(name: str, *, parent: str | None = None, **begun: Any) -> Iterator[OpenSpan]:
    """A span around a block; it is the present one there, and the log lines of the block carry its `trace_id`. What is raised marks it as failed.

    Args:
        name: As for `open_span`.
        parent: As for `open_span`.
        begun: The other arguments of `open_span`.
    """
    opened = open_span(name, parent=parent, **begun)
    if opened.made is None and parent is None:  # nothing begins here
        yield opened
        return
    with ExitStack() as stack:
        if opened.traceparent is not None:
            stack.callback(_PRESENT.reset, _PRESENT.set(opened.traceparent))
            stack.enter_context(
                structlog.contextvars.bound_contextvars(trace_id=trace_id_of(opened.traceparent))
            )
        if opened.made is not None:
            api = sys.modules[_API]
            stack.callback(opened.end)
            present = api.use_span(
                opened.made,
                record_exception=False,  # its message may quote a text
                set_status_on_exception=False,
            )
            stack.enter_context(present)
        try:
            yield opened
        except Exception as error:
            opened.fail_with(error)
            raise


@contextmanager
def spans_of_each(name: str, parents: Sequence[str | None], **begun: Any) -> Iterator[list[str | None]]:
    """A span for each of several things that are done together; one traceparent for each, to go on from.

    What belongs to the present trace, or to none, needs no span of its own.
    """
    present = current_traceparent()
    here = None if present is None else trace_id_of(present)
    with ExitStack() as stack:
        found: list[str | None] = []
        for parent in parents:
            if parent is None or trace_id_of(parent) == here:
                found.append(present or parent)
                continue
            opened = open_span(name, parent=parent, **begun)
            stack.callback(opened.end)
            found.append(opened.traceparent)
        yield found


def current_traceparent() -> str | None:
    """Where the trace of the present work goes on: under its span, also one of the application around us, or under what came in; None without either."""
    api = sys.modules.get(_API)
    made = None if api is None else _traceparent(api.get_current_span())
    return made or _PRESENT.get()


def _tracer() -> "Tracer | None":
    """Where spans are begun; None where nobody sends traces."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    provider = api.get_tracer_provider()
    if isinstance(provider, api.ProxyTracerProvider):  # nobody has set one up
        return None
    tracer: Tracer = provider.get_tracer("wherefrom", __version__)
    return tracer


def _remote(traceparent: str) -> "Span":
    """A span of another process."""
    api = sys.modules[_API]
    _, trace_id, span_id, flags = traceparent.split("-")
    context = api.SpanContext(
        trace_id=int(trace_id, 16),
        span_id=int(span_id, 16),
        is_remote=True,
        trace_flags=api.TraceFlags(int(flags, 16)),
    )
    span: Span = api.NonRecordingSpan(context)
    return span


def _traceparent(span: "Span") -> str | None:
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return traceparent_of(context.trace_id, context.span_id, context.trace_flags)


def _named(attributes: dict[str, Value | None]) -> dict[str, Value]:
    return {_PREFIX + name: value for name, value in attributes.items() if value is not None}
