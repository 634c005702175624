"""Commands of fix lists: the board of culprits, what is to change in the training data, and the corpus without it."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption, takes_filters
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.cli.output_file import output_file
from wherefrom.cli.reviewing import AsOption
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.errors import ConfigurationError, NotFound
from wherefrom.records import (
    GROUP_WARNING,
    MAX_OUTPUTS,
    Culprit,
    FixAction,
    FixListSummary,
    WhatIfOutput,
    WhatIfRecord,
)
from wherefrom.terminal import counted, out, print_table, say, visible

#: Seconds between two looks at a what-if.
POLL_S = 2.0

ListArgument = Annotated[str, typer.Argument(metavar="LIST", help="Name of the fix list, or its number.")]
ActionOption = Annotated[FixAction | None, typer.Option("--action", help="Only rows with this decision.")]


@takes_filters
def culprits(
    *,
    filters: AuditFilters,
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many training examples.")] = 20,
    least_outputs: Annotated[
        int, typer.Option(min=1, help="Only those that at least so many outputs cite.")
    ] = 1,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the training examples that a selection of audits names: each once, strongest first.

    The strength adds 1 / rank over the outputs that cite a training example.

    Examples:
      wherefrom culprits --reason refund_promise

      wherefrom culprits --since 2026-01-01 --least-outputs 3 --json
    """
    with Service(url) as service:
        found = service.culprits(most=most, least_outputs=least_outputs, **filters)
    if as_json:
        print_json(found.items)
        return
    print_culprits(found.items)


def fix_lists(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the fix lists: what is to be removed, fixed and kept.

    Examples:
      wherefrom fix-lists
    """
    with Service(url) as service:
        found = service.fix_lists()
    if as_json:
        print_json(found)
        return
    columns = [
        ("number", "right"),
        ("list", "left"),
        ("owner", "left"),
        *((one.value, "right") for one in FixAction),
    ]
    rows = [
        (str(one.list_id), visible(one.name) + (" (closed)" if one.closed_at else ""), visible(one.owner), str(one.remove), str(one.fix), str(one.keep))
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="no fix list")


def fix_list_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new list.")],
    *,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a fix list; it belongs to whoever makes it.

    Examples:
      wherefrom fix-list-create "refund promises" --note "before the February training"
    """
    with Service(url) as service:
        made = service.make_fix_list(name, note=note, reviewer=reviewer)
    if as_json:
        print_json([made])
    else:
        out().print(Text(f"fix list {made.list_id}: {visible(made.name)}"))


@takes_filters
def fix_list_add(
    fix_list: ListArgument,
    *,
    row: Annotated[
        list[int] | None,
        typer.Option("--row", metavar="NUMBER", help="Number of a training example; may be repeated."),
    ] = None,
    whole_source: Annotated[
        str | None, typer.Option("--whole-source", help="All stored training examples of this source.")
    ] = None,
    of_culprits: Annotated[
        bool, typer.Option("--culprits", help="The culprits of the audits that pass the filters.")
    ] = False,
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many culprits.")] = 20,
    least_outputs: Annotated[
        int, typer.Option(min=1, help="Only culprits that at least so many outputs cite.")
    ] = 1,
    action: Annotated[FixAction, typer.Option(help="What is to become of them.")] = FixAction.REMOVE,
    off: Annotated[bool, typer.Option("--off", help="Take them off the list.")] = False,
    why: Annotated[str, typer.Option("--why", help="The reason, kept with each row.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    filters: AuditFilters,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put training examples on a fix list, change what was decided, or take them off.

    Examples:
      wherefrom fix-list-add "refund promises" --row 812 --row 815 --why "no receipt"

      wherefrom fix-list-add "refund promises" --culprits --reason refund_promise --most 10

      wherefrom fix-list-add 3 --whole-source vendor-batch-7 --dry-run
    """
    if bool(row) + (whole_source is not None) + of_culprits != 1:
        raise typer.BadParameter("give one of --row, --whole-source and --culprits")
    if not of_culprits and any(value is not None for value in filters.values()):
        raise typer.BadParameter("filters choose audits; they need --culprits")
    with Service(url) as service:
        changed = service.put_on_fix_list(
            list_of(service, fix_list).list_id,
            action=None if off else action,
            reason=why,
            training_example_ids=row or (),
            source=whole_source,
            culprits=filters if of_culprits else None,
            most=most,
            least_outputs=least_outputs,
            dry_run=dry_run,
            reviewer=reviewer,
        )
    if as_json:
        print_json([changed])
    else:
        out().print(f"{changed.matched} training examples, {changed.changed} changed")


def fix_list_rows(
    fix_list: ListArgument,
    *,
    action: ActionOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all rows with their texts as JSON lines.")
    ] = None,
    cleaned: Annotated[
        bool,
        typer.Option(
            "--cleaned",
            help="Write the corpus without the rows that leave, as the service keeps it: prompt, completion and further fields. Needs --output.",
        ),
    ] = False,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            metavar="SHA256",
            help="With --cleaned: which corpus, where the rows of the list are of several.",
        ),
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the rows of a fix list, or write them for whoever retrains; each training example stands there once.

    The service keeps corpora of up to 50,000 rows whole. fix-list-clean reads the corpus's own file, of any size and shape.

    Examples:
      wherefrom fix-list-rows "refund promises"

      wherefrom fix-list-rows "refund promises" --action remove -o remove.jsonl

      wherefrom fix-list-rows "refund promises" --cleaned -o cleaned.jsonl
    """
    _check_cleaned(action, output, corpus, cleaned=cleaned)
    with Service(url) as service:
        found = list_of(service, fix_list)
        if cleaned and output is not None:
            _write_cleaned(service, found, output, corpus=corpus)
            return
        if output is not None:
            content = service.export_fix_rows(found.list_id, action=action)
            with output_file(output) as unfinished:
                unfinished.write_bytes(content)
            written = counted(len(content.splitlines()), "row")
            out().print(Text(f"{written} written to {visible(str(output))}"))
            return
        rows = list(service.fix_rows(found.list_id, action=action))
    if as_json:
        print_json(rows)
        return
    columns = [("number", "right"), ("id", "left"), ("source", "left"), ("decision", "left"), ("who", "left"), ("outputs", "right"), ("reason", "left")]  # fmt: skip
    cells = [
        (str(one.training_example_id), visible(one.example_id), visible(one.source), one.action.value, visible(one.by), str(one.outputs), one_line(one.reason, length=60))
        for one in rows
    ]  # fmt: skip
    print_table(columns, cells, empty="nothing is on the list")


def _check_cleaned(
    action: FixAction | None, output: Path | None, corpus: str | None, *, cleaned: bool
) -> None:
    """Refuse options that say nothing together.

    Raises:
        ConfigurationError: the text says what to give.
    """
    if cleaned and output is None:
        raise ConfigurationError("--cleaned writes a file: name it with --output")
    if cleaned and action is not None:
        raise ConfigurationError("--cleaned leaves out what is to be removed and fixed; leave --action out")
    if corpus is not None and not cleaned:
        raise ConfigurationError("--corpus names the corpus that --cleaned writes; give both")


def _write_cleaned(service: Service, fix_list: FixListSummary, output: Path, *, corpus: str | None) -> None:
    kept = 0
    with output_file(output) as unfinished, unfinished.open("w", encoding="utf-8") as lines:
        for row in service.cleaned_corpus(fix_list.list_id, corpus=corpus):
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
            kept += 1
    out().print(Text(f"{counted(kept, 'row')} written to {visible(str(output))}"))


@takes_filters
def what_if(
    fix_list: ListArgument,
    *,
    filters: AuditFilters,
    most: Annotated[int, typer.Option(min=1, max=MAX_OUTPUTS, help="How many of the newest outputs.")] = 200,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until workers have answered.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict what leaving a fix list out would do to outputs. A worker scores every row against every output, not only stored citations.

    The unit z: above the mean of random lists of the same length, in their spreads. Nats only where the bundle has a fitted scale.

    Examples:
      wherefrom what-if "refund promises" --reason refund_promise --wait

      wherefrom what-if 3 --most 500 --json
    """
    with Service(url) as service:
        asked = service.ask_what_if(list_of(service, fix_list).list_id, most=most, **filters)
        found = (
            [(one, service.what_if_outputs(one.what_if_id)) for one in _ended(service, asked)] if wait else []
        )
    if as_json:
        print_json([output for _, outputs in found for output in outputs] if wait else asked)
        return
    if not wait:
        for one in asked:
            out().print(
                Text(
                    f"what-if {one.what_if_id}: {counted(one.rows, 'row')}, {counted(one.outputs, 'output')}, bundle {visible(one.bundle)}"
                )
            )
        return
    print_what_if([output for _, outputs in found for output in outputs])


def _ended(service: Service, asked: Sequence[WhatIfRecord]) -> list[WhatIfRecord]:
    """The same what-ifs when no worker has anything to do for them any more."""
    found = list(asked)
    while any(one.state.is_open for one in found):
        time.sleep(POLL_S)
        found = [service.what_if(one.what_if_id) for one in found]
    return found


def print_culprits(found: Sequence[Culprit]) -> None:
    """Training examples that are blamed, as a table."""
    columns = [("number", "right"), ("source", "left"), ("outputs", "right"), ("first", "right"), ("strength", "right"), ("influence", "right"), ("confirmed", "right"), ("text", "left")]  # fmt: skip
    rows = [
        (str(one.training_example_id), visible(one.source), str(one.outputs), str(one.first_citations), f"{one.strength:.2f}", number(one.mean_influence), str(one.confirmed), one_line(one.completion, length=60))
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="no audit of the selection cites anything")


def print_what_if(outputs: Sequence[WhatIfOutput]) -> None:
    """The outputs of what-ifs, as a table with the warning about groups."""
    columns = [
        ("audit", "right"),
        ("z", "right"),
        ("chance", "right"),
        ("nats", "right"),
        ("", "left"),
        ("output", "left"),
    ]
    rows = [
        (str(one.audit_id), number(one.z, digits=1), number(one.chance), number(one.effect_nats), one.code or ("not told from 0" if one.differs is False else ""), one_line(one.excerpt, length=60))
        for one in outputs
    ]  # fmt: skip
    print_table(columns, rows, empty="no output")
    say(GROUP_WARNING, to_stderr=True)


def list_of(service: Service, wanted: str) -> FixListSummary:
    """The list of this name or number.

    Raises:
        NotFound: there is none.
    """
    found = service.fix_lists()
    named = [one for one in found if one.name == wanted]
    numbered = [one for one in found if wanted.isdecimal() and one.list_id == int(wanted)]
    if not (named or numbered):
        raise NotFound(f"no fix list is named {wanted!r}; `wherefrom fix-lists` lists them")
    return (named or numbered)[0]


def told(kept: int, left_out: int, missing: int, output: Path) -> Text:
    """What became of a corpus, in a sentence."""
    text = f"{counted(left_out, 'row')} left out, {counted(kept, 'row')} written to {visible(str(output))}"
    return Text(text + (f"; {counted(missing, 'row')} of the list are not in this corpus" if missing else ""))
