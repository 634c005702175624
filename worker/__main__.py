"""The operator's command line: `python -m worker COMMAND`.

The commands are imported when it opens: a worker's pool processes import this module too, by spawning, and need none of them.
"""

import gc
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    import typer

# What imports make stays. Python would look through all of it again after every 700 new objects: an eighth of the time that a process takes to start.
gc.set_threshold(10_000)

#: Commands that run until they are told to stop: to be told so is no failure, however early.
SERVICE = frozenset({"up", "run", "measure", "build-worker", "intake", "sweep", "web"})


def make_app() -> "typer.Typer":
    """The command line."""
    import typer

    from worker.commands.admin import add_admin_commands
    from worker.commands.backup import add_backup_commands
    from worker.commands.build import add_build_commands
    from worker.commands.bundle import add_bundle_commands
    from worker.commands.command_line import EXIT_CODES
    from worker.commands.forget import add_forget_commands
    from worker.commands.key import add_key_commands
    from worker.commands.notify import add_notify_commands
    from worker.commands.service import add_service_commands
    from worker.commands.trail import add_trail_commands

    app = typer.Typer(
        name="python -m worker",
        help="Run and maintain the wherefrom service.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    add_service_commands(app)
    add_bundle_commands(app)
    add_build_commands(app)
    add_admin_commands(app)
    add_key_commands(app)
    add_forget_commands(app)
    add_notify_commands(app)
    add_trail_commands(app)
    add_backup_commands(app)
    return app


def leave_on_signals() -> None:
    """End in order on SIGTERM and SIGINT until the command has its own way to stop: its imports alone take seconds.

    What was opened is closed and what was started is stopped, for an exception ends the command. A second signal ends it at once.
    """
    told_to_run = sys.argv[1:2] and sys.argv[1] in SERVICE

    def _leave(number: int, _frame: "FrameType | None") -> None:
        signal.signal(number, signal.SIG_DFL)
        raise SystemExit(0 if told_to_run else 128 + number)

    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)


def main() -> None:
    """Entry point."""
    leave_on_signals()
    from wherefrom.threads import sleep_while_waiting
    from worker.commands.command_line import run_command_line

    sleep_while_waiting()
    run_command_line(make_app())


if __name__ == "__main__":
    main()
