"""What all commands of the operator's door share: exit codes, settings, output, errors without a traceback."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherefrom.errors import PermanentError, TransientError
from wherefrom.logs import configure_logging
from wherefrom.settings import Settings, load_settings

if TYPE_CHECKING:
    from db.session import Database

#: Something was found unwell (`health`, `doctor`), or a worker stalled.
EXIT_UNHEALTHY = 1
#: An argument, a setting or a bundle is wrong; trying again cannot help.
EXIT_USAGE = 2
#: Redis or the database is away; trying again later may help.
EXIT_UNAVAILABLE = 3

EXIT_CODES = "Exit codes: 0 ok, 1 unhealthy, 2 wrong usage, settings or bundle, 3 Redis or database away."

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WithParent = Annotated[
    bool,
    typer.Option(
        "--exit-with-parent", hidden=True, help="End when the process that started this one has died."
    ),
]


def open_settings() -> Settings:
    """The settings of this process, with logging set up by them.

    Raises:
        ConfigurationError: an environment variable cannot be used.
    """
    settings = load_settings()
    configure_logging(settings)
    return settings


@contextmanager
def opened_database(settings: Settings) -> Iterator["Database"]:
    """The database for the time of one command."""
    from db.session import open_database  # noqa: PLC0415 - not every command has a database

    database = open_database(settings)
    try:
        yield database
    finally:
        database.dispose()


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table of the named fields on standard output."""
    from rich.console import Console  # noqa: PLC0415 - few commands print a table
    from rich.table import Table  # noqa: PLC0415

    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    Console().print(table)


def run_door(app: Callable[[], None]) -> None:
    """Run the command line; mistakes and absences become one line and an exit code."""
    try:
        app()
    except PermanentError as error:
        typer.echo(f"error ({error.code}): {error}", err=True)
        sys.exit(EXIT_USAGE)
    except TransientError as error:
        typer.echo(f"unavailable ({error.code}): {error}", err=True)
        sys.exit(EXIT_UNAVAILABLE)
