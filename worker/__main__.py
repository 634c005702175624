"""The operator's door: `python -m worker COMMAND`.

The commands are imported when it opens: a worker's pool processes import this module too, by spawning, and need none of them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer


def make_app() -> "typer.Typer":
    """The command line."""
    import typer

    from worker.admin_commands import add_admin_commands
    from worker.bundle_commands import add_bundle_commands
    from worker.door import EXIT_CODES
    from worker.service_commands import add_service_commands

    app = typer.Typer(
        name="python -m worker",
        help="Run and look after the wherefrom service.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    add_service_commands(app)
    add_bundle_commands(app)
    add_admin_commands(app)
    return app


def main() -> None:
    """Entry point."""
    from worker.door import run_door

    run_door(make_app())


if __name__ == "__main__":
    main()
