"""Commands that look after the service: doctor, retry and API keys.

As in `worker.service_commands`, each imports what it runs when it runs: the command line is put together in every process of the service.
"""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditState
from wherefrom.terminal import counted, say
from worker.command_line import (
    EXIT_UNHEALTHY,
    EXIT_USAGE,
    Json,
    hint_at,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)
from worker.replay_commands import replay


def doctor(*, as_json: Json = False) -> None:
    """Check the installation: database, Redis, bundles, audits, processes. Exit code 1 if there is a problem.

    Examples:
      python -m worker doctor
      python -m worker doctor --json
    """
    from worker.doctor import examine

    findings = [asdict(finding) for finding in examine(open_settings())]
    if as_json:
        print_json(findings)
    else:
        print_rows(("what", "verdict", "text"), findings, empty="nothing was looked at")
    if any(finding["verdict"] == "problem" for finding in findings):
        raise typer.Exit(EXIT_UNHEALTHY)


def retry(
    audit_ids: Annotated[list[int] | None, typer.Argument(help="Ids of the audits.")] = None,
    *,
    state: Annotated[
        AuditState | None,
        typer.Option(help="All audits in this state: dead, rejected or abstained; with --bundle also done."),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Audit the outputs again under this bundle (name or id). The old answers are kept."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Queue dead, rejected or abstained audits again, or repeat answered ones under another bundle.

    Examples:
      python -m worker retry 17 18
      python -m worker retry --state dead
      python -m worker retry 17 18 --bundle support-v1-9f2c
      python -m worker retry --state done --bundle support-v1-9f2c
    """
    if bool(audit_ids) == bool(state):
        raise ConfigurationError("give either audit ids or --state")
    if bundle is not None:
        _ask_again(bundle, audit_ids or None, state, as_json=as_json)
        return
    if state is not None and not state.is_requeuable:
        raise ConfigurationError(
            f"{state.value} audits cannot be retried; only dead, rejected and abstained ones can. "
            "To repeat answered audits under another bundle, add --bundle NAME"
        )
    _requeue(audit_ids or None, state, as_json=as_json)


def _requeue(audit_ids: list[int] | None, state: AuditState | None, *, as_json: bool) -> None:
    from db import waiting
    from db.audit_queue import AuditQueue

    settings = open_settings()
    with opened_database(settings) as database:
        requeued = waiting.requeue(database, audit_ids=audit_ids, state=state)
        hint_at(settings, AuditQueue(database).pending_counts())
    if as_json:
        print_json({"requeued": requeued})
    else:
        say(f"{counted(requeued, 'audit is', 'audits are')} pending again")
    if audit_ids and requeued < len(set(audit_ids)):
        say(
            f"{len(set(audit_ids)) - requeued} of the ids cannot be retried: they do not exist, wait for a bundle, or are not dead, rejected or abstained",
            to_stderr=True,
        )
        raise typer.Exit(EXIT_USAGE)


def _ask_again(bundle: str, audit_ids: list[int] | None, state: AuditState | None, *, as_json: bool) -> None:
    from db import catalogue, routing
    from db.audit_queue import AuditQueue

    settings = open_settings()
    with opened_database(settings) as database:
        known = catalogue.find_bundle(database, bundle)
        asked = routing.ask_again(database, known.id, audit_ids=audit_ids, state=state)
        hint_at(settings, AuditQueue(database).pending_counts())
    if as_json:
        print_json({"bundle": known.name, **asdict(asked)})
    else:
        say(
            f"{asked.asked} queued under {known.name}, {asked.present} already audited there, {asked.left_out} left out"
        )
    if asked.left_out:
        say(
            f"left out are ids that do not exist, and outputs that were erased, wait for a bundle, or come from another model than {known.model}",
            to_stderr=True,
        )
        raise typer.Exit(EXIT_USAGE)


class Role(StrEnum):
    """What a person may do, in one word; `db.keys.ROLES` has the scopes."""

    REVIEWER = "reviewer"
    AUDITOR = "auditor"
    ADMIN = "admin"


#: Longest life of a key, days; beyond it a date cannot be written.
LONGEST_DAYS = 36_500

Days = Annotated[
    int | None,
    typer.Option(min=1, max=LONGEST_DAYS, help="Days until the key expires; default: never."),
]


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
    as_json: Json = False,
) -> None:
    """Create an API key. The key is shown once and not stored: keep it.

    Examples:
      python -m worker keys create production --scope ingest --days 90
      python -m worker keys create production-eu --scope ingest --producer production
      python -m worker keys create dashboard --scope read
      python -m worker keys create ann-laptop --scope read --scope review --person ann
    """
    from db import keys

    expires_at = in_days(days)
    with opened_database(open_settings()) as database:
        key = keys.create_key(database, name, scope, expires_at, producer=producer, person=person)
    if as_json:
        print_json(
            {
                "name": name,
                "producer": producer or name,
                "scopes": scope,
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
    from db import keys

    expires_at = in_days(days)
    with opened_database(open_settings()) as database:
        new = keys.rotate_key(
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
    from db import keys

    with opened_database(open_settings()) as database:
        rows = [asdict(key) for key in keys.list_keys(database)]
    if as_json:
        print_json(rows)
    else:
        print_rows(tuple(rows[0]) if rows else ("name",), rows, empty="no API keys")


def keys_revoke(name: Annotated[str, typer.Argument(help="Name of the key.")]) -> None:
    """Revoke an API key at once.

    Examples:
      python -m worker keys revoke production
    """
    from db import keys

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
    as_json: Json = False,
) -> None:
    """Add a person, and create the API key with which they sign in. The key is shown once and not stored.

    A person may hold several keys: run the command again with another --key-name.

    Examples:
      python -m worker people add ann --role auditor
      python -m worker people add ben --role reviewer --days 90
    """
    from db import keys

    scopes = [scope.value for scope in keys.ROLES[role.value]]
    with opened_database(open_settings()) as database:
        key = keys.create_key(database, key_name or name, scopes, in_days(days), person=name)
    if as_json:
        print_json({"person": name, "role": role.value, "scopes": scopes, "key": key})
    else:
        say(key)


def people_list(*, as_json: Json = False) -> None:
    """List the people and how many keys were made for each. A person without a key is a name that was chosen on this machine.

    Examples:
      python -m worker people list
    """
    from db import people

    with opened_database(open_settings()) as database:
        rows = [asdict(one) for one in people.list_people(database)]
    if as_json:
        print_json(rows)
    else:
        print_rows(("name", "keys", "created_at"), rows, empty="no people")


def add_admin_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    for command in (doctor, retry, replay):
        app.command(rich_help_panel="Maintenance")(command)
    key_commands = typer.Typer(no_args_is_help=True, help="API keys of producers and auditors.")
    key_commands.command("create")(keys_create)
    key_commands.command("list")(keys_list)
    key_commands.command("rotate")(keys_rotate)
    key_commands.command("revoke")(keys_revoke)
    app.add_typer(key_commands, name="keys", rich_help_panel="Maintenance")
    people_commands = typer.Typer(no_args_is_help=True, help="People who review, and their keys.")
    people_commands.command("add")(people_add)
    people_commands.command("list")(people_list)
    app.add_typer(people_commands, name="people", rich_help_panel="Maintenance")
