"""Commands for API keys and the people behind them.

As in `worker.commands.service`, each imports what it runs when it runs: the command line is put together in every process of the service.
"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wherefrom.terminal import say
from worker.commands.command_line import Json, open_settings, opened_database, print_json, print_rows

if TYPE_CHECKING:
    from db.sight import Limits


class Role(StrEnum):
    """What a person may do, in one word; `db.access.keys.ROLES` has the scopes."""

    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    ADMIN = "admin"


#: Longest life of a key, days; beyond it a date cannot be written.
LONGEST_DAYS = 36_500

Days = Annotated[
    int | None,
    typer.Option(min=1, max=LONGEST_DAYS, help="Days until the key expires; default: never."),
]


def _only(what: str) -> Any:
    return typer.Option(help=f"Limit the key to this {what}; may be repeated.")


OnlyProducer = Annotated[list[str] | None, _only("producer")]
OnlyModel = Annotated[list[str] | None, _only("model")]
OnlyQueue = Annotated[list[str] | None, _only("review queue")]


def _limits(producers: list[str] | None, models: list[str] | None, queues: list[str] | None) -> "Limits":
    from db.sight import Limits

    return Limits(tuple(producers or ()), tuple(models or ()), tuple(queues or ()))


def keys_create(
    name: Annotated[str, typer.Argument(help="Name of the key; a name is never used twice.")],
    *,
    scope: Annotated[
        list[str], typer.Option(help="ingest, read, review, measure, metrics or admin; may be repeated.")
    ],
    producer: Annotated[
        str | None,
        typer.Option(
            help="Owner of the key. All keys of one producer share its idempotency keys. Default: the key's name."
        ),
    ] = None,
    person: Annotated[
        str | None,
        typer.Option(
            help="Who judges with the key. Default: the key's name where it has the scope review, else nobody."
        ),
    ] = None,
    days: Days = None,
    only_producer: OnlyProducer = None,
    only_model: OnlyModel = None,
    only_queue: OnlyQueue = None,
    as_json: Json = False,
) -> None:
    """Create an API key. The key is shown once and not stored: keep it.

    A key may be limited to producers, models and review queues: it is shown nothing of the others, and sends nothing of other models.

    Examples:
      python -m worker keys create production --scope ingest --days 90
      python -m worker keys create shop-auditor --scope read --only-producer shop --only-model support-v1
      python -m worker keys create production-eu --scope ingest --producer production
      python -m worker keys create dashboard --scope read
      python -m worker keys create ann-laptop --scope read --scope review --person ann
    """
    from db.access import keys

    expires_at = in_days(days)
    with opened_database(open_settings()) as database:
        limits = _limits(only_producer, only_model, only_queue)
        key = keys.create_key(
            database, name, scope, expires_at, producer=producer, person=person, limits=limits
        )
    if as_json:
        print_json(
            {
                "name": name,
                "producer": producer or name,
                "scopes": scope,
                "limits": limits.stored(),
                "expires_at": expires_at,
                "key": key,
            }
        )
    else:
        say(key)


def keys_rotate(
    name: Annotated[str, typer.Argument(help="Name of the key to replace.")],
    *,
    new_name: Annotated[
        str | None, typer.Option(help="Name of the new key. Default: the old name with the next number.")
    ] = None,
    grace_hours: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=24.0 * LONGEST_DAYS,
            help="Hours for which the old key stays valid; 0 revokes it now.",
        ),
    ] = 24.0,
    days: Days = None,
    as_json: Json = False,
) -> None:
    """Create a new API key for the same producer, with the same scopes. The old key ends after a grace period.

    A record that was sent with the old key and again with the new one is stored once.

    Examples:
      python -m worker keys rotate production
      python -m worker keys rotate production --new-name production-2027 --grace-hours 0 --days 90
    """
    from db.access import key_rotation

    expires_at = in_days(days)
    with opened_database(open_settings()) as database:
        new = key_rotation.rotate_key(
            database, name, grace_s=grace_hours * 3600.0, new_name=new_name, expires_at=expires_at
        )
    if as_json:
        print_json({**asdict(new), "expires_at": expires_at, "replaces": name, "grace_hours": grace_hours})
    else:
        say(new.key)
        say(
            f"the new key is called {new.name}; {name} ends {f'in {grace_hours:g} hours' if grace_hours else 'now'}",
            to_stderr=True,
        )


def in_days(days: int | None) -> datetime | None:
    """When something ends that lasts this many days from now; None for never."""
    return None if days is None else datetime.now(UTC) + timedelta(days=days)


def keys_list(*, as_json: Json = False) -> None:
    """List the API keys (never the keys themselves).

    Examples:
      python -m worker keys list
    """
    from db.access import keys

    with opened_database(open_settings()) as database:
        rows = [
            asdict(key) | {"limits": key.limits.stored(), "quotas": key.quotas.stored()}
            for key in keys.list_keys(database)
        ]
    if as_json:
        print_json(rows)
    else:
        print_rows(tuple(rows[0]) if rows else ("name",), rows, empty="no API keys")


def keys_quotas(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    *,
    requests_per_second: Annotated[
        float | None, typer.Option(help="Requests a second, over a longer time.")
    ] = None,
    burst: Annotated[int | None, typer.Option(help="Requests at once. Default: those of a second.")] = None,
    outputs: Annotated[int | None, typer.Option(help="Flagged outputs a day.")] = None,
    measurements: Annotated[int | None, typer.Option(help="Measurements asked for a day.")] = None,
    what_ifs: Annotated[int | None, typer.Option(help="What-ifs asked for a day.")] = None,
    exports: Annotated[int | None, typer.Option(help="Exports and reports a day.")] = None,
    reaudits: Annotated[
        int | None,
        typer.Option(
            help="Audits a day that somebody asks for: under another bundle, of a supposed answer, of a finding."
        ),
    ] = None,
) -> None:
    """Bound what an API key may do. The command replaces all bounds of the key; without an option it takes them away.

    A request beyond a bound gets 429 with `Retry-After`. Days are those of UTC. All web processes count together.

    Examples:
      python -m worker keys quotas production --requests-per-second 20 --burst 100 --outputs 50000
      python -m worker keys quotas ann --measurements 20 --what-ifs 10 --exports 50
      python -m worker keys quotas ann
    """
    from db.access import keys
    from db.access.budgets import Quotas

    quotas = Quotas(
        requests_per_second=requests_per_second,
        burst=burst,
        outputs=outputs,
        measurements=measurements,
        what_ifs=what_ifs,
        exports=exports,
        reaudits=reaudits,
    )
    with opened_database(open_settings()) as database:
        keys.set_quotas(database, name, quotas)
    bounds = ", ".join(f"{what.replace('_', ' ')} {most:g}" for what, most in (quotas.stored() or {}).items())
    say(f"the key {name} has these bounds: {bounds}" if bounds else f"the key {name} has no bounds")


def keys_revoke(name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """Revoke an API key at once.

    Examples:
      python -m worker keys revoke production
    """
    from db.access import keys

    with opened_database(open_settings()) as database:
        keys.revoke_key(database, name)
    say(f"the key {name} is revoked")


def people_add(
    name: Annotated[str, typer.Argument(help="Name of the person, as it stands beside their verdicts.")],
    *,
    role: Annotated[
        Role,
        typer.Option(
            help="reviewer (judges what is in their queues), auditor (reads and judges all, has effects measured) or admin."
        ),
    ],
    key_name: Annotated[str | None, typer.Option(help="Name of the key. Default: the person's name.")] = None,
    days: Days = None,
    only_producer: OnlyProducer = None,
    only_model: OnlyModel = None,
    only_queue: OnlyQueue = None,
    as_json: Json = False,
) -> None:
    """Add a person, and create the API key with which they sign in. The key is shown once and not stored.

    A person may hold several keys: run the command again with another --key-name.

    Examples:
      python -m worker people add ann --role auditor
      python -m worker people add ben --role reviewer --days 90
      python -m worker people add cho --role auditor --only-queue refunds
    """
    from db.access import keys

    scopes = [scope.value for scope in keys.ROLES[role.value]]
    with opened_database(open_settings()) as database:
        limits = _limits(only_producer, only_model, only_queue)
        key = keys.create_key(database, key_name or name, scopes, in_days(days), person=name, limits=limits)
    if as_json:
        print_json({"person": name, "role": role.value, "scopes": scopes, "key": key})
    else:
        say(key)


def people_list(*, as_json: Json = False) -> None:
    """List the people and how many keys were made for each. A person without a key is a name that was chosen on this machine.

    Examples:
      python -m worker people list
    """
    from db.access import people

    with opened_database(open_settings()) as database:
        rows = [asdict(one) for one in people.list_people(database)]
    if as_json:
        print_json(rows)
    else:
        print_rows(("name", "keys", "created_at"), rows, empty="no people")


def add_key_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    key_commands = typer.Typer(no_args_is_help=True, help="API keys of producers and auditors.")
    key_commands.command("create")(keys_create)
    key_commands.command("list")(keys_list)
    key_commands.command("rotate")(keys_rotate)
    key_commands.command("quotas")(keys_quotas)
    key_commands.command("revoke")(keys_revoke)
    app.add_typer(key_commands, name="keys", rich_help_panel="Maintenance")
    people_commands = typer.Typer(no_args_is_help=True, help="People who review, and their keys.")
    people_commands.command("add")(people_add)
    people_commands.command("list")(people_list)
    app.add_typer(people_commands, name="people", rich_help_panel="Maintenance")
