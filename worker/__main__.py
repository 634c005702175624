"""The operator's door: `python -m worker COMMAND`."""

import typer

from worker.admin_commands import add_admin_commands
from worker.door import EXIT_CODES, run_door
from worker.service_commands import add_service_commands


def make_app() -> typer.Typer:
    """The command line."""
    app = typer.Typer(
        name="python -m worker",
        help="Run and look after the wherefrom service.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    add_service_commands(app)
    add_admin_commands(app)
    return app


def main() -> None:
    """Entry point."""
    run_door(make_app())


if __name__ == "__main__":
    main()
