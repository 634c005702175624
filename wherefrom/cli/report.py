"""`wherefrom report`: one audit or an incident as one HTML file for people."""

from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, OutputOption, UrlOption, takes_filters
from wherefrom.cli.output import print_json
from wherefrom.cli.output_file import output_file
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.errors import InvalidRequest
from wherefrom.terminal import out, visible


@takes_filters
def report(
    audit_ids: Annotated[
        list[int] | None, typer.Argument(metavar="[AUDIT_ID]...", min=1, help="The audits' numbers.")
    ] = None,
    *,
    output: OutputOption,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    filters: AuditFilters,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a report of one audit or of an incident: one HTML file with plots, to be attached to a ticket or printed.

    It has no script and needs nothing from elsewhere. Name audits, or filter: the newest 50 that pass are shown. --in-queue takes a review queue.

    Examples:
      wherefrom report 17 -o audit-17.html

      wherefrom report --reason refund_promise --since 7d --title "Refund promises" -o incident.html

      wherefrom report --in-queue refunds -o refunds.html
    """
    if not audit_ids and all(value is None for value in filters.values()):
        raise InvalidRequest("name audits, or give filters")
    with Service(url) as service:
        content = service.report(audit_ids or (), title=title, **filters)
    with output_file(output) as unfinished:
        unfinished.write_text(content, encoding="utf-8")
    if as_json:
        print_json([{"output": str(output), "size_bytes": len(content.encode())}])
    else:
        out().print(Text(f"report written to {visible(str(output))}"))
