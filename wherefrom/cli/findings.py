"""Commands of findings: flagged outputs that say the same kind of thing, and what people do to them."""

from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import one_line, print_json
from wherefrom.cli.reviewing import AsOption
from wherefrom.client import Service
from wherefrom.records import FindingDetail, FindingSummary
from wherefrom.terminal import counted, out, print_table, say, visible

FindingArgument = Annotated[int, typer.Argument(min=1, metavar="FINDING", help="Number of the finding.")]


def findings(
    *,
    bundle: Annotated[str | None, typer.Option(help="Only findings under the bundle of this name.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="How many; 0: all.")] = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the findings: outputs that say the same kind of thing, those with the most outputs first.

    Examples:
      wherefrom findings

      wherefrom audits --finding 3
    """
    with Service(url) as service:
        found = list(islice(service.findings(bundle=bundle), limit or None))
    if as_json:
        print_json(found)
        return
    columns = [("number", "right"), ("finding", "left"), ("outputs", "right"), ("first citations from", "left"), ("bundle", "left")]  # fmt: skip
    rows = [
        (
            str(one.finding_id),
            one_line(one.name, length=60),
            str(one.outputs),
            _sources(one),
            visible(one.bundle),
        )
        for one in found
    ]
    print_table(columns, rows, empty="no finding")


def finding(
    number: FindingArgument,
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one finding: its sources, its culprits, and what people did to it. `wherefrom audits --finding` lists its outputs.

    Examples:
      wherefrom finding 3
    """
    with Service(url) as service:
        found = service.finding(number)
    if as_json:
        print_json([found])
    else:
        _print(found)


def finding_rename(
    number: FindingArgument,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="The title; empty: the telling words.")],
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a finding a title.

    Examples:
      wherefrom finding-rename 3 "refunds for ever"
    """
    with Service(url) as service:
        _print_changed(service.rename_finding(number, title, reviewer=reviewer), as_json=as_json)


def finding_merge(
    number: FindingArgument,
    into: Annotated[int, typer.Argument(min=1, metavar="INTO", help="The finding that it goes into.")],
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put a finding into another one. `finding-take-out` undoes it.

    Examples:
      wherefrom finding-merge 5 3
    """
    with Service(url) as service:
        _print_changed(service.merge_finding(number, into, reviewer=reviewer), as_json=as_json)


def finding_take_out(
    number: FindingArgument,
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a finding that was put into another one stand by itself again.

    Examples:
      wherefrom finding-take-out 5
    """
    with Service(url) as service:
        _print_changed(service.take_out_finding(number, reviewer=reviewer), as_json=as_json)


def finding_split(
    number: FindingArgument,
    audits: Annotated[
        list[int], typer.Argument(min=1, metavar="AUDIT_ID...", help="Audits whose outputs leave.")
    ],
    *,
    title: Annotated[str, typer.Option(help="Title of the new finding.")] = "",
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let outputs leave a finding for a new one. `finding-merge` undoes it.

    Examples:
      wherefrom finding-split 3 17 21 --title "refunds after a repair"
    """
    with Service(url) as service:
        changed = service.split_finding(number, audits, title=title, reviewer=reviewer)
    _print_changed(changed, as_json=as_json)


def finding_ask(number: FindingArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Ask one question about the outputs of a finding: what taught the model what they share?

    The newest 256 outputs whose texts are there are asked about. The answer is an audit of its own.

    Examples:
      wherefrom finding-ask 3
    """
    with Service(url) as service:
        found = service.ask_finding(number)
    if as_json:
        print_json([found])
    else:
        say(f"Finding {number} as one question: audit {found.audit_id} ({found.status})")
        say(f"Next: wherefrom show {found.audit_id}")


def _print_changed(changed: FindingSummary, *, as_json: bool) -> None:
    if as_json:
        print_json([changed])
    else:
        lines = counted(changed.outputs, "output")
        out().print(Text(f"finding {changed.finding_id}: {visible(changed.name)}, {lines}"))


def _print(detail: FindingDetail) -> None:
    one = detail.finding
    say(f"Finding {one.finding_id}: {one.name}")
    say(
        f"{counted(one.outputs, 'output')} under the bundle {one.bundle}; first citations from {_sources(one) or 'nowhere'}"
    )
    columns = [("number", "right"), ("source", "left"), ("outputs", "right"), ("first", "right"), ("strength", "right"), ("culprit", "left")]  # fmt: skip
    rows = [
        (str(at.training_example_id), visible(at.source), str(at.outputs), str(at.first_citations), f"{at.strength:.2f}", one_line(at.completion, length=60))
        for at in detail.culprits.items
    ]  # fmt: skip
    print_table(columns, rows, empty="no culprit")
    for merged in detail.merged:
        say(f"Finding {merged.finding_id} went into it: {merged.name}, {counted(merged.outputs, 'output')}")
    for related in detail.related:
        say(f"Under {related.bundle}: finding {related.finding_id}, {related.name}, {related.shared} shared")
    for entry in detail.history:
        other = "" if entry.other is None else f" {entry.other}"
        say(
            f"{entry.at:%Y-%m-%d %H:%M} {entry.by or 'the sweeper'}: finding {entry.finding_id} {entry.event.value}{other}"
        )


def _sources(one: FindingSummary) -> str:
    return ", ".join(f"{visible(source.source)} ({source.outputs})" for source in one.sources[:3])
