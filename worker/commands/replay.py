"""The command `replay`: entries that intake could not take go back into the stream, are listed, or are dropped."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from wherefrom.errors import ConfigurationError
from wherefrom.terminal import counted, say
from worker.commands.command_line import EXIT_USAGE, Json, open_settings, print_json, print_rows

if TYPE_CHECKING:
    from worker.flagged_stream.replay import Kept, KeptEntries

#: Entries shown of each kind unless asked otherwise.
SHOWN = 50

_COLUMNS = ("id", "kept", "at", "code", "reason", "record_bytes", "whole")


def replay(
    entry_ids: Annotated[
        list[str] | None, typer.Argument(help="Entry ids as --list shows them; default: all entries.")
    ] = None,
    *,
    kept: Annotated[str | None, typer.Option("--from", help="quarantine or rejected; default: both.")] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the entries; change nothing.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Delete entries for good instead.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="All entries; --drop needs it when no ids are given.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="Most entries of each kind that --list shows.")] = SHOWN,
    as_json: Json = False,
) -> None:
    """Put rejected or quarantined entries back into the flagged stream, list them, or drop them.

    Fix the cause first, or the entries are rejected again. An entry keeps its first id as its idempotency key, so replaying
    it twice stores it once. Records that were cut when they were rejected stay where they are.

    Examples:
      python -m worker replay --list
      python -m worker replay
      python -m worker replay --from quarantine
      python -m worker replay 1718000000000-0
      python -m worker replay --drop 1718000000000-0
      python -m worker replay --drop --all --from rejected
    """
    from worker.broker.redis_link import connect_redis
    from worker.embedded import beside_local_service
    from worker.flagged_stream.replay import Kept, KeptEntries

    if kept is not None and kept not in list(Kept):
        raise ConfigurationError(f"--from {kept!r}: unknown; choose from {', '.join(Kept)}")
    if entry_ids and everything:
        raise ConfigurationError("give either ids or --all")
    if drop and not entry_ids and not everything and not listing:
        raise ConfigurationError("--drop deletes for good: give ids, or --all")
    kinds = [Kept(kept)] if kept else list(Kept)
    settings = beside_local_service(open_settings())
    with connect_redis(settings) as client:
        entries = KeptEntries(client, settings)
        if listing:
            _show(entries, kinds, limit=limit, as_json=as_json)
            return
        act = entries.drop if drop else entries.take_back
        outcome = act(kinds, entry_ids or None)
    if as_json:
        print_json(asdict(outcome))
    elif drop:
        say(f"{counted(outcome.dropped, 'entry', 'entries')} dropped")
    else:
        say(f"{counted(outcome.replayed, 'entry is', 'entries are')} back in the stream")
    if outcome.cut:
        say(
            f"{counted(outcome.cut, 'entry was', 'entries were')} cut when rejected and cannot go back. Send the records again from their source, then --drop the entries",
            to_stderr=True,
        )
        if entry_ids:
            raise typer.Exit(EXIT_USAGE)


def _show(entries: "KeptEntries", kinds: "list[Kept]", *, limit: int, as_json: bool) -> None:
    rows = [asdict(one) for one in entries.listed(kinds, limit=limit)]
    if as_json:
        print_json(rows)
        return
    print_rows(_COLUMNS, rows, empty="no entries")
    counts = entries.counts()
    say(", ".join(f"{counts[kind]} {kind.value}" for kind in kinds))
