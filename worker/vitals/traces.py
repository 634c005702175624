"""Sends the spans of this process by OTLP over HTTP, where the OTEL_* variables ask for it and the extra `otel` is installed; else imports nothing.

The SDK reads the variables: endpoint, headers, sampler, limits, names of service and resource. Spans go out in a thread of their own; what a collector that is away
does not take is dropped, and no work waits for it; the end of a process does, for the time limit of OpenTelemetry (10 s).
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from wherefrom.logs import get_logger
from wherefrom.settings import trace_export
from wherefrom.version import __version__

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider

log = get_logger(__name__)

#: What the extra `otel` brings.
_EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
#: What is said where it is missing.
MISSING = "the OTEL_* variables ask for traces, but OpenTelemetry's SDK is not installed: pip install 'wherefrom[otel]'"
#: How OpenTelemetry calls a service that has no name.
_NAMELESS = "unknown_service"


class Traces:
    """The traces of one process; `close` it at the end, so that the last spans go out."""

    def __init__(self, provider: "TracerProvider | None") -> None:
        self._provider = provider

    def close(self) -> None:
        """Send what waits, and end; takes up to OTEL_EXPORTER_OTLP_TIMEOUT (10 s) where the collector is away."""
        if self._provider is not None:
            self._provider.shutdown()


def start_traces(role: str) -> Traces:
    """Begin to send the spans of this process, once, where that is asked for; what stands in the way is logged.

    Args:
        role: What the process does, for the resource of its spans.
    """
    asked = trace_export()
    if asked is None:
        return Traces(None)
    if (problem := asked.problem or missing_package()) is not None:
        log.warning("traces_not_sent", reason=problem)
        return Traces(None)
    provider = _provider(role)
    log.info("traces_sent", role=role)
    return Traces(provider)


def missing_package() -> str | None:
    """What to install; None where it is there."""
    try:
        found = find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    return None if found is not None else MISSING


def _provider(role: str) -> "TracerProvider":
    from opentelemetry import trace  # noqa: PLC0415 - optional extra
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - optional extra
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional extra
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional extra

    # Pool processes end without Python's `atexit`: whoever starts it closes it.
    provider = TracerProvider(resource=_resource(role), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


def _resource(role: str) -> "Resource":
    """What all spans of this process say of it; names that the operator gave stay."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - optional extra

    found = Resource.create({"service.version": __version__, "wherefrom.role": role})
    if str(found.attributes.get(SERVICE_NAME, _NAMELESS)).startswith(_NAMELESS):
        return found.merge(Resource({SERVICE_NAME: "wherefrom"}))
    return found
