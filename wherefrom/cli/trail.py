"""The command that reads the trail."""

import json
from itertools import islice
from typing import Annotated

import typer

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import print_json
from wherefrom.client import Service
from wherefrom.records import TrailRecord
from wherefrom.terminal import print_table, visible

#: Characters of an event's details that a table shows.
_DETAILS = 80


def trail(
    *,
    kind: Annotated[str | None, typer.Option(help="What happened, exactly, for example text.read.")] = None,
    subject: Annotated[str | None, typer.Option(help="To what, exactly, for example audit:7.")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it, exactly, for example person:3.")] = None,
    since: Annotated[
        str | None, typer.Option(help="At or after: a day, a time, today, or how long ago (24h, 7d).")
    ] = None,
    until: Annotated[str | None, typer.Option(help="At or before; a day includes all of it.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most events.")] = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the trail: who did what, and who was shown which flagged text. The newest events come first.

    Examples:
      wherefrom trail --kind text.read --since today

      wherefrom trail --subject audit:7 --json
    """
    with Service(url) as service:
        asked = {"kind": kind, "subject": subject, "actor": actor, "since": since, "until": until}
        found = islice(service.trail(**asked, page_size=min(limit, 200)), limit)
        if as_json:
            print_json(found)
            return
        columns = [(name, "left") for name in ("at", "what", "to what", "who", "details")]
        print_table([*columns, ("place", "right")], map(_row, found), empty="no event")


def _row(one: TrailRecord) -> tuple[str, ...]:
    details = json.dumps(one.payload)
    shown = details if len(details) <= _DETAILS else f"{details[: _DETAILS - 1]}…"
    place = "-" if one.sequence is None else str(one.sequence)
    when = one.at.isoformat(" ", "seconds")
    return when, visible(one.kind), visible(one.subject), visible(one.actor or "-"), visible(shown), place
