"""Options that several commands of the service share."""

from typing import Annotated

import typer

from wherefrom.records import AuditState, Severity

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="Address of the service; else WHEREFROM_SERVICE_URL. The key: WHEREFROM_API_KEY."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")
]
StateOption = Annotated[AuditState | None, typer.Option("--state", help="Where the audit stands.")]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model revision that answered, exactly.")]
BundleOption = Annotated[str | None, typer.Option("--bundle", help="Bundle that explains it, exactly.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Why it was flagged, exactly.")]
SeverityOption = Annotated[
    Severity | None, typer.Option("--severity", help="How urgent the producer finds it.")
]
SourceOption = Annotated[str | None, typer.Option("--source", help="Some citation comes from this source.")]
TopSourceOption = Annotated[
    str | None, typer.Option("--top-source", help="The first citation comes from this source.")
]
SinceOption = Annotated[
    str | None, typer.Option("--since", help="Received from this day (2026-01-31) or time (ISO 8601).")
]
UntilOption = Annotated[str | None, typer.Option("--until", help="Received until then; a day counts whole.")]
TextOption = Annotated[str | None, typer.Option("--text", help="Part of the flagged output.")]
FdrOption = Annotated[
    float | None,
    typer.Option(
        "--fdr",
        metavar="LEVEL",
        help="Judge the whole listing at this false discovery rate, for example .1, and say which audits are supported.",
    ),
]
ChannelOption = Annotated[str | None, typer.Option("--channel", help="Way in: http or stream.")]
