"""`wherefrom suppose` and `wherefrom compare`: what if the model had said something else?"""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.audit_view import print_heading
from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.client import Service
from wherefrom.errors import ConfigurationError
from wherefrom.records import ComparedCitation, Comparison
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


def compare(
    audit_id: _AuditId,
    other: Annotated[int, typer.Argument(min=1, metavar="OTHER_AUDIT_ID", help="The other audit.")],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the citations of two audits side by side: which stayed, which are gone, which came.

    Ranks compare. Scores compare only within one audit.

    Examples:
      wherefrom compare 17 93
    """
    with Service(url) as service:
        found = service.compare(audit_id, other)
    if as_json:
        print_json([found])
        return
    _print_comparison(found)


def _print_comparison(found: Comparison) -> None:
    told = ", ".join(f"{found.count(change)} {change}" for change in ("stayed", "gone", "came"))
    bundles = "" if found.same_bundle else "; the audits are of different bundles"
    print_heading(f"Audit {found.audit_id} beside {found.other_audit_id}: {told}{bundles}")
    columns = [
        (f"rank in {found.audit_id}", "right"), ("influence", "right"), (f"rank in {found.other_audit_id}", "right"), ("influence", "right"),
        ("change", "left"), ("source", "left"), ("example", "left"), ("text", "left"),
    ]  # fmt: skip
    print_table(
        columns, [_row(one) for one in found.citations], empty="neither audit cites a training example"
    )


def _row(one: ComparedCitation) -> tuple[str | Text, ...]:
    ranks = ["-" if rank is None else str(rank) for rank in (one.rank, one.other_rank)]
    return (
        ranks[0], number(one.influence_score), ranks[1], number(one.other_influence_score),
        one.change, one.source, one.example_id, one_line(one.completion, length=80),
    )  # fmt: skip
