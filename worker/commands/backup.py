"""Commands that back up the service and bring it back.

As in `worker.commands.service`, each imports what it runs when it runs.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wherefrom.terminal import counted, say
from worker.commands.command_line import EXIT_UNHEALTHY, Json, open_settings, print_json


def backup(
    *,
    out: Annotated[Path, typer.Option(help="New folder for the backup.")],
    bundles: Annotated[bool, typer.Option("--bundles/--no-bundles", help="Copy the bundles too.")] = True,
    as_json: Json = False,
) -> None:
    """Back up the database and the bundles into a folder, while the service runs.

    Models are not copied: keep their folders. Keep the anchors of the trail elsewhere; they show that a restored database is an older one.

    Examples:
      python -m worker backup --out /backups/2026-11-27
      python -m worker backup --out /backups/today --no-bundles --json
    """
    from worker.backup import make_backup

    made = make_backup(open_settings(), out, with_bundles=bundles)
    if as_json:
        print_json({"path": str(out), **asdict(made)})
        return
    say(f"{out} holds the database (schema {made.revision}) and {counted(len(made.bundles), 'bundle')}.")
    for name in made.missing:
        say(f"warning: the folder of bundle {name} is not on this machine and was not copied", to_stderr=True)


def restore(
    folder: Annotated[Path, typer.Argument(help="Folder of a backup.")], *, as_json: Json = False
) -> None:
    """Bring a backup into an empty database and the bundles folder. Stop the service before.

    The trail is verified at the end. Exit code 1: it is not whole; after a restore it says `cut` where an anchor saw later events, which are lost then.

    Examples:
      python -m worker restore /backups/2026-11-27
    """
    from worker.backup import restore_backup

    found = restore_backup(open_settings(), folder)
    if as_json:
        print_json(asdict(found) | {"whole": found.trail.whole})
    else:
        say(
            f"the database of {found.backup.created_at} is back, with {counted(len(found.backup.bundles), 'bundle')} ({len(found.bundles)} copied)."
        )
        say(
            "Next: python -m worker migrate, then start the service. Texts that were erased after the backup are back; erase them again."
        )
    if not found.trail.whole:
        say(f"the trail ({found.trail.fault}): {found.trail.text}", to_stderr=True)
        say(
            "note: what happened after the backup is not in the database: changes of keys too. Repeat them, keep the old file of anchors, and begin a new one",
            to_stderr=True,
        )
        raise typer.Exit(EXIT_UNHEALTHY)


def add_backup_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    for command in (backup, restore):
        app.command(rich_help_panel="Maintenance")(command)
