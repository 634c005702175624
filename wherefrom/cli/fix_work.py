"""Commands about one fix list beyond its rows: its history, its owner, closing it, its what-ifs, and having it measured."""

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.fixing import ListArgument, list_of, print_what_if
from wherefrom.cli.measuring import print_measurement, waited
from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import ExitCode, one_line, print_json
from wherefrom.cli.queues import person_named
from wherefrom.cli.reviewing import AsOption
from wherefrom.client import Service
from wherefrom.records import GroupMeasurementRecord, MeasurementRecord, MeasurementState
from wherefrom.terminal import out, print_table, visible

WhatIfArgument = Annotated[int, typer.Argument(min=1, metavar="WHAT_IF", help="Number of the what-if.")]


def fix_list_history(fix_list: ListArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show who put what on a fix list, when and why; the newest entries first.

    Examples:
      wherefrom fix-list-history "refund promises"
    """
    with Service(url) as service:
        found = service.fix_history(list_of(service, fix_list).list_id)
    if as_json:
        print_json(found)
        return
    columns = [("entry", "right"), ("when", "left"), ("who", "left"), ("what", "left"), ("rows", "right"), ("reason", "left")]  # fmt: skip
    rows = [
        (str(one.entry_id), f"{one.at:%Y-%m-%d %H:%M}", visible(one.by), one.action.value if one.action else one.event.value, str(one.rows), one_line(one.reason, length=60))
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="nothing has happened to it")


def fix_list_give(
    fix_list: ListArgument,
    *,
    to: Annotated[str, typer.Option(metavar="PERSON", help="Its new owner: name or number.")],
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a fix list to another owner.

    Examples:
      wherefrom fix-list-give "refund promises" --to ben
    """
    with Service(url) as service:
        owner = person_named(service, to)
        found = service.give_fix_list(list_of(service, fix_list).list_id, owner.person_id, reviewer=reviewer)
    if as_json:
        print_json([found])
    else:
        out().print(Text(f"fix list {visible(found.name)} belongs to {visible(found.owner)}"))


def fix_list_close(
    fix_list: ListArgument, *, reviewer: AsOption = None, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Let nothing on a fix list change any more.

    Examples:
      wherefrom fix-list-close "refund promises"
    """
    with Service(url) as service:
        found = service.close_fix_list(list_of(service, fix_list).list_id, reviewer=reviewer)
    if as_json:
        print_json([found])
    else:
        out().print(Text(f"fix list {visible(found.name)} is closed"))


def what_ifs(fix_list: ListArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the newest what-ifs of a fix list.

    Examples:
      wherefrom what-ifs "refund promises"
    """
    with Service(url) as service:
        found = service.what_ifs(list_of(service, fix_list).list_id)
    if as_json:
        print_json(found)
        return
    columns = [("what-if", "right"), ("state", "left"), ("bundle", "left"), ("rows", "right"), ("scored", "right"), ("asked by", "left"), ("when", "left")]  # fmt: skip
    rows = [
        (str(one.what_if_id), one.state.value, visible(one.bundle), str(one.rows), f"{one.scored} of {one.outputs}", visible(one.requested_by), f"{one.created_at:%Y-%m-%d %H:%M}")
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="nothing was asked about it")


def what_if_show(what_if: WhatIfArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show the outputs of a what-if with their scores, the highest above chance first.

    Examples:
      wherefrom what-if-show 4
    """
    with Service(url) as service:
        found = service.what_if_outputs(what_if)
    if as_json:
        print_json(found)
    else:
        print_what_if(found)


def what_if_measure(
    what_if: WhatIfArgument,
    *,
    audit: Annotated[list[int], typer.Option("--audit", help="Audit of an output of it; may be repeated.")],
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the measurements have ended.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the effect of the whole fix list on outputs: the model is trained without all of it, beside groups of like rows.

    Answers at once; the trainings take minutes to hours, and serve all outputs.

    Exit code 1: with --wait, a measurement ended dead.

    Examples:
      wherefrom what-if-measure 4 --audit 17 --audit 21 --wait
    """
    with Service(url) as service:
        found: Sequence[MeasurementRecord | GroupMeasurementRecord] = service.measure_list(what_if, audit)
        if wait:
            found = [waited(service, one) for one in found]
    if as_json:
        print_json(found)
    else:
        for one in found:
            print_measurement(one)
    if wait and any(one.state is MeasurementState.DEAD for one in found):
        raise typer.Exit(ExitCode.REFUSED)
