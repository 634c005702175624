"""`wherefrom group`: several flagged outputs of a service as one question."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import print_json
from wherefrom.client import Service
from wherefrom.client.records_in import read_record
from wherefrom.errors import ConfigurationError
from wherefrom.json_text import objects_in
from wherefrom.records import FlaggedRecord, OutputGroupRequest
from wherefrom.records.bounds import MAX_MEMBERS
from wherefrom.terminal import counted, say

#: Model of acceptable answers that name none; nothing depends on it.
_ANY_MODEL = "any"


def group(
    audits: Annotated[
        list[int] | None,
        typer.Argument(min=1, metavar="AUDIT_ID...", help="Audits whose outputs are one question."),
    ] = None,
    *,
    file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Further outputs as JSONL, one record v1 per line. Each is flagged first."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against",
            help="Acceptable answers as JSONL: prompt or messages, and completion. What outputs share with them counts for nothing.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", help="Name of the group, shown like an output's reason.")
    ] = "group",
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask one question about several flagged outputs: what taught the model what they share?

    The group has an audit of its own, and its citations show how each output scores them. The same question again gets the same audit.

    Examples:
      wherefrom group 17 21 34 --name "refund promises"

      wherefrom group --input flagged.jsonl --against acceptable.jsonl --json
    """
    records = () if file is None else tuple(read_record(one) for _, one in objects_in(file))
    answers = () if against is None else tuple(_answers(against))
    ids = tuple(audits or ())
    if not 1 <= len(ids) + len(records) <= MAX_MEMBERS or len(answers) > MAX_MEMBERS:
        raise ConfigurationError(
            f"{len(ids) + len(records)} outputs and {len(answers)} acceptable answers; a group has 1 to {MAX_MEMBERS} outputs, "
            "by audit or by --input, and at most as many answers"
        )
    with Service(url) as service:
        found = service.group(OutputGroupRequest(audits=ids, records=records, against=answers, name=name))
    if as_json:
        print_json([found])
        return
    state = f"; {found.reason}" if found.reason else ""
    say(
        f"Group of {counted(len(ids) + len(records), 'output')}: audit {found.audit_id} ({found.status}){state}"
    )
    say(f"Next: wherefrom show {found.audit_id}")


def _answers(file: Path) -> Iterator[FlaggedRecord]:
    for _, one in objects_in(file):
        yield read_record({"model": _ANY_MODEL, **one})
