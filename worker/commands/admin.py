"""Commands that look after the service: doctor and retry.

As in `worker.commands.service`, each imports what it runs when it runs: the command line is put together in every process of the service.
"""

from dataclasses import asdict
from typing import Annotated

import typer

from wherefrom.errors import ConfigurationError
from wherefrom.records import AuditState
from wherefrom.terminal import counted, say
from worker.commands.command_line import (
    EXIT_UNHEALTHY,
    EXIT_USAGE,
    Json,
    hint_at,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)
from worker.commands.replay import replay


def doctor(
    *,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Hash every file of the active bundles, whatever this machine remembers of them."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the installation: database, Redis, bundles, audits, processes. Exit code 1 if there is a problem.

    Examples:
      python -m worker doctor
      python -m worker doctor --verify --json
    """
    from worker.checkup.doctor import examine

    findings = [asdict(finding) for finding in examine(open_settings(), afresh=verify)]
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
    from db.queues import waiting
    from db.queues.audit_queue import AuditQueue

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
    from db.bundles import catalogue, routing
    from db.queues.audit_queue import AuditQueue

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


def roles() -> None:
    """Print the SQL that makes the database roles of PostgreSQL: owner, writer, ingest and auditor. Nothing is run.

    Run it as a superuser after each `migrate`; it takes away what it does not grant. See docs/operations.md.

    Examples:
      python -m worker roles | psql postgresql://postgres@db.example/wherefrom
    """
    from db.roles import roles_sql

    say(roles_sql(), keep="\n")


def add_admin_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    for command in (doctor, retry, replay, roles):
        app.command(rich_help_panel="Maintenance")(command)
