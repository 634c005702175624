"""What all commands of `python -m worker` share: exit codes, settings, output, errors without a traceback."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherefrom.errors import PermanentError, QueueUnavailable, TransientError
from wherefrom.logs import configure_logging
from wherefrom.settings import Settings, load_settings, masked
from wherefrom.terminal import print_table, say

if TYPE_CHECKING:
    from db.session import Database

#: Something was found unwell (`health`, `doctor`), or a worker stalled.
EXIT_UNHEALTHY = 1
#: An argument, a setting or a bundle is wrong; trying again cannot help.
EXIT_USAGE = 2
#: Redis or the database is away; trying again later may help.
EXIT_UNAVAILABLE = 3

EXIT_CODES = (
    "Exit codes: 0 ok, 1 unhealthy, 2 wrong usage, settings or bundle, 3 Redis or database unavailable."
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WithParent = Annotated[
    int | None,
    typer.Option(
        "--exit-with-parent",
        hidden=True,
        help="Id of the parent process; this process ends when the parent has died.",
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
    """The database for the time of one command; what it does is the operator's in the trail."""
    from db.audit_trail.trail import OPERATOR, acting_as  # noqa: PLC0415 - as above
    from db.session import open_database  # noqa: PLC0415 - not every command has a database

    with open_database(settings) as database, acting_as(OPERATOR):
        yield database


def hint_at(settings: Settings, pending: dict[int, int]) -> None:
    """Hint at the work; the sweeper does so too, so an absent Redis is only printed."""
    from wherefrom.metrics import Metrics  # noqa: PLC0415 - only what queues audits hints
    from worker.app import make_celery  # noqa: PLC0415 - only what queues audits hints
    from worker.broker.hints import HintSender  # noqa: PLC0415 - only what queues audits hints
    from worker.broker.redis_link import connect_redis  # noqa: PLC0415 - only what queues audits hints
    from worker.embedded import beside_local_service  # noqa: PLC0415 - only what queues audits hints

    settings = beside_local_service(settings)
    with connect_redis(settings) as client:
        hints = HintSender(
            make_celery(settings), client, settings=settings, metrics=Metrics(), sender="operator"
        )
        try:
            hints.send_for_work(pending)
        except QueueUnavailable as error:
            say(f"note: {error}; the sweeper sends hints when Redis is back", to_stderr=True)


def print_json(value: Any) -> None:
    """One JSON value on standard output, ASCII only, so that a terminal obeys none of it."""
    typer.echo(json.dumps(value, default=str))


def print_rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, empty: str) -> None:
    """A table of the named fields on standard output, or the sentence `empty`."""
    cells = ([_cell(row[column]) for column in columns] for row in rows)
    print_table([(column, "left") for column in columns], cells, empty=empty)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def run_command_line(app: Callable[[], None]) -> None:
    """Run the command line; mistakes and absences become one line and an exit code."""
    try:
        app()
    except PermanentError as error:
        say(masked(f"error ({error.code}): {error}"), to_stderr=True, keep="\n")
        sys.exit(EXIT_USAGE)
    except TransientError as error:
        say(masked(f"unavailable ({error.code}): {error}"), to_stderr=True, keep="\n")
        sys.exit(EXIT_UNAVAILABLE)
