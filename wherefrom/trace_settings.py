"""What the OTEL_* variables ask of us; `wherefrom.settings` reads them. Everything else that they say, OpenTelemetry's SDK reads by itself."""

from collections.abc import Mapping
from dataclasses import dataclass

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER, _DISABLED = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"


@dataclass(frozen=True)
class TraceExport:
    """That traces are to be sent."""

    #: Why they cannot be sent as the variables say; None where they can.
    problem: str | None = None


def read_trace_export(variables: Mapping[str, str]) -> TraceExport | None:
    """What the variables ask for; None where they ask for no traces."""
    if variables.get(_DISABLED, "").strip().lower() == "true":
        return None
    endpoint = _first(variables, _ENDPOINTS)
    exporter = variables.get(_EXPORTER, "").strip().lower() or ("otlp" if endpoint else "none")
    if exporter == "none":
        return None
    if exporter != "otlp":
        return TraceExport(f"{_EXPORTER} is {exporter!r}; wherefrom sends traces by `otlp` alone")
    protocol = _first(variables, _PROTOCOLS)
    if protocol not in {"", "http/protobuf"}:
        return TraceExport(
            f"the protocol is {protocol!r}; wherefrom speaks `http/protobuf`, to which collectors listen on port 4318"
        )
    return TraceExport()


def _first(variables: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these variables that is set; empty where none is."""
    return next((found for name in names if (found := variables.get(name, "").strip())), "")
