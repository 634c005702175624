"""Commands about the webhook: a secret, a test, what was told, and telling it again. Each imports what it runs when it runs."""

from typing import Annotated

import typer

from wherefrom.errors import ConfigurationError
from wherefrom.records import DeliveryState
from wherefrom.terminal import counted, say
from worker.commands.command_line import (
    EXIT_UNAVAILABLE,
    Json,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)

_COLUMNS = (
    "delivery_id",
    "kind",
    "subject",
    "state",
    "attempt",
    "created_at",
    "next_attempt_at",
    "code",
    "reason",
)


def notify_secret() -> None:
    """Make a secret for WHEREFROM_NOTIFY_SECRET. Give the same one to the receiver.

    Examples:
      python -m worker notify secret
    """
    from wherefrom.webhook import new_secret

    say(new_secret())


def notify_test(*, as_json: Json = False) -> None:
    """Send a test notice to the webhook now, and say what came of it. It is listed like any notice. Exit code 3: the receiver did not take it.

    Examples:
      python -m worker notify test
    """
    from db.notices import outbox
    from wherefrom.metrics import Metrics
    from wherefrom.records import Notice, NoticeKind
    from worker.sweeper.notifying import Deliverer
    from worker.sweeper.webhook import WebhookSender

    settings = open_settings()
    if (target := settings.webhook()) is None:
        raise ConfigurationError("no webhook is set: set WHEREFROM_NOTIFY_URL, see docs/operations.md")
    wait_s = settings.notify_timeout_seconds
    with opened_database(settings) as database:
        with database.writing() as session:  # due only later: the sweeper leaves it to this command
            number = outbox.announce(session, Notice(kind=NoticeKind.TEST), wait_s=2 * wait_s)
        deliverer = Deliverer(
            database, WebhookSender(target, timeout_s=wait_s), settings=settings, metrics=Metrics()
        )
        deliverer.deliver(delivery_id=number)
        (told,) = outbox.list_deliveries(database, delivery_id=number)
    if as_json:
        print_json(told.model_dump(mode="json"))
    elif told.state is DeliveryState.DELIVERED:
        say(f"the receiver took {told.event_id}")
    else:
        say(f"{told.event_id} is {told.state.value}: {told.reason} ({told.code})", to_stderr=True)
    if told.state is not DeliveryState.DELIVERED:
        raise typer.Exit(EXIT_UNAVAILABLE)


def notify_list(
    *,
    state: Annotated[DeliveryState | None, typer.Option(help="Only notices in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most notices to list.")] = 50,
    as_json: Json = False,
) -> None:
    """List the newest notices, and what became of them. Delivered and dead ones are listed for 30 days.

    Examples:
      python -m worker notify list
      python -m worker notify list --state dead --json
    """
    from db.notices import outbox

    with opened_database(open_settings()) as database:
        found = outbox.list_deliveries(database, state=state, limit=limit)
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
    else:
        print_rows(_COLUMNS, [one.model_dump() for one in found], empty="nothing was told")


def notify_retry(
    delivery_ids: Annotated[
        list[int] | None, typer.Argument(help="Ids of dead notices; none: all dead ones.")
    ] = None,
) -> None:
    """Send dead notices again, with all their tries.

    Examples:
      python -m worker notify retry
      python -m worker notify retry 17 18
    """
    from db.notices import outbox

    with opened_database(open_settings()) as database:
        again = outbox.retry_dead(database, delivery_ids or ())
    say(f"{counted(again, 'notice')} will be sent again")


def add_notify_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    commands = typer.Typer(no_args_is_help=True, help="The webhook that is told when something needs people.")
    for name, command in (
        ("secret", notify_secret),
        ("test", notify_test),
        ("list", notify_list),
        ("retry", notify_retry),
    ):
        commands.command(name)(command)
    app.add_typer(commands, name="notify", rich_help_panel="Maintenance")
