"""`wherefrom suppose`: what if the model had said something else?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import one_line, print_json
from wherefrom.client import Service
from wherefrom.errors import ConfigurationError
from wherefrom.terminal import print_table, say

_AuditId = Annotated[int, typer.Argument(min=1, metavar="AUDIT_ID", help="Audit of the flagged output.")]


def suppose(
    audit_id: _AuditId,
    *,
    completion: Annotated[
        str | None, typer.Option("--completion", help="Another answer, in place of the flagged one.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--completion-file", help="The same from a file, in UTF-8.")
    ] = None,
    preferred: Annotated[
        str | None, typer.Option("--preferred", help="An acceptable answer that it is held against.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Audit another answer in place of a flagged one, or the flagged one against an acceptable answer.

    It is queued as an audit of its own, marked as hypothetical, and counts nowhere.

    Examples:
      wherefrom suppose 17 --completion "We refund within 30 days."

      wherefrom suppose 17 --preferred "I cannot promise that."
    """
    if completion is not None and file is not None:
        raise ConfigurationError("give --completion or --completion-file, not both")
    said = completion if file is None else file.read_text(encoding="utf-8")
    with Service(url) as service:
        found = service.suppose(audit_id, completion=said, preferred=preferred)
    if as_json:
        print_json([found])
        return
    say(f"Hypothetical in place of audit {audit_id}: audit {found.audit_id} ({found.status})")
    say(f"Next: wherefrom compare {audit_id} {found.audit_id}")


def hypotheticals(audit_id: _AuditId, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List what was supposed in place of an audit's output, newest first.

    Examples:
      wherefrom hypotheticals 17
    """
    with Service(url) as service:
        found = service.hypotheticals(audit_id)
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str | Text, ...]] = [
        (str(one.audit_id), one.state.value, one.top_source or "-", one_line(one.excerpt, length=80))
        for one in found
    ]
    columns = [("audit", "right"), ("state", "left"), ("first citation from", "left"), ("answer", "left")]
    print_table(columns, rows, empty="nothing was supposed")
