"""Commands of the trail: verify its chain, seal what waits, show its newest events.

As in `worker.commands.service`, each imports what it runs when it runs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from wherefrom.terminal import counted, say
from worker.commands.command_line import EXIT_UNHEALTHY, Json, open_settings, opened_database, print_json

Anchor = Annotated[
    Path | None,
    typer.Option("--anchor", help="File with anchors. Default: WHEREFROM_TRAIL_ANCHOR_FILE."),
]


def trail_verify(*, anchor: Anchor = None, as_json: Json = False) -> None:
    """Verify the trail: every event, its place, and the anchors that were put outside. Exit code 1: a link is broken.

    It only reads, and takes about a minute for a million events.

    Examples:
      python -m worker trail verify
      python -m worker trail verify --anchor /mnt/elsewhere/anchors.jsonl --json
    """
    from db.audit_trail.trail_verify import verify
    from wherefrom.errors import ConfigurationError
    from worker.sweeper.anchors import AnchorFile, anchor_file

    settings = open_settings()
    if anchor is not None and not anchor.exists():
        raise ConfigurationError(f"there is no file {anchor}; name the file of the anchors")
    file = anchor_file(settings) if anchor is None else AnchorFile(anchor)
    with opened_database(settings) as database:
        found = verify(database, anchors=file.read())
    if as_json:
        print_json(asdict(found) | {"whole": found.whole})
    else:
        _say(found, file.path)
    if not found.whole:
        raise typer.Exit(EXIT_UNHEALTHY)


def _say(found: Any, anchors: Path) -> None:
    if found.whole:
        say(
            f"the chain is whole: {counted(found.events, 'event')}, {counted(found.anchors, 'anchor')} in {anchors}"
        )
    else:
        say(f"BROKEN ({found.fault.value}): {found.text}")
    if not found.anchors:
        say(f"note: no anchor in {anchors}, so a tail that was cut off cannot be missed", to_stderr=True)
    if found.unsealed:
        say(
            f"note: {counted(found.unsealed, 'event')} not sealed yet, the oldest for {found.lag_s:.1f} s; the sweeper seals them",
            to_stderr=True,
        )


def trail_seal(*, as_json: Json = False) -> None:
    """Move the reads of this machine into the trail, seal what waits, and put an anchor outside. The sweeper does so all the time.

    For a machine whose web process is gone for good, or a database without a sweeper.

    Examples:
      python -m worker trail seal
    """
    from wherefrom.metrics import Metrics
    from worker.sweeper.sealing import Sealer

    settings = open_settings()
    with opened_database(settings) as database:
        sealer = Sealer(database, settings, metrics=Metrics())
        sealed = sealer.step()
        sealer.close()
    if as_json:
        print_json({"sealed": sealed})
    else:
        say(f"{counted(sealed, 'event')} sealed")


def add_trail_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    trail_commands = typer.Typer(no_args_is_help=True, help="The trail: who did and read what.")
    trail_commands.command("verify")(trail_verify)
    trail_commands.command("seal")(trail_seal)
    app.add_typer(trail_commands, name="trail", rich_help_panel="Maintenance")
