"""Commands of the reverse question beyond lists: one source, and search in training texts."""

from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.audit_view import print_heading
from wherefrom.cli.fixing import print_culprits
from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.cli.service import LimitOption
from wherefrom.client import Service
from wherefrom.records import SourceDetail
from wherefrom.terminal import print_table, say, visible


def source(
    name: Annotated[str, typer.Argument(metavar="SOURCE", help="Name of the source.")],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one source: its test against its size, its blame over time, its worst training examples, what people found.

    Examples:
      wherefrom source vendor-batch-7

      wherefrom source vendor-batch-7 --json | jq .blame.q
    """
    with Service(url) as service:
        found = service.source(name)
    if as_json:
        print_json([found])
    else:
        _print_source(found)


def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="Words that stand side by side in a training text.")
    ],
    *,
    source: Annotated[str | None, typer.Option(help="Only training examples of this source.")] = None,
    limit: LimitOption = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search in the stored training texts, cited or not; the newest first.

    Examples:
      wherefrom search "no receipt"

      wherefrom search "no receipt" --source vendor-batch-7 --limit 0 --json
    """
    with Service(url) as service:
        found = islice(service.search_examples(text, source=source), limit or None)
        if as_json:
            print_json(found)
            return
        rows = [
            (str(one.training_example_id), visible(one.source), str(one.outputs), one_line(one.completion, length=80))
            for one in found
        ]  # fmt: skip
    columns = [("number", "right"), ("source", "left"), ("outputs", "right"), ("text", "left")]
    print_table(columns, rows, empty="no stored training text has these words")


def _print_source(found: SourceDetail) -> None:
    blame = found.blame
    print_heading(f"{visible(blame.source)}: {blame.examples} training examples")
    expected = (
        "its share of the corpus is not known"
        if blame.expected is None
        else f"its size explains {blame.expected:.1f}"
    )
    say(
        f"First citation of {blame.first_citations} of {blame.audits} outputs; {expected}; q {number(blame.q)}"
    )
    for verdict, times in found.verdicts.items():
        say(f"{times} citations {verdict.replace('_', ' ')}")
    rows: list[tuple[str | Text, ...]] = [
        (f"{one.start:%Y-%m-%d %H:%M}", str(one.audits), str(one.first_citations))
        for one in found.over_time
        if one.audits
    ]
    print_table(
        [("from", "left"), ("outputs", "right"), ("first citations", "right")],
        rows,
        empty="no audit is answered yet",
    )
    print_culprits(found.worst.items)
