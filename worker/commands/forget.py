"""Commands that erase: training examples, flagged outputs, by request or by retention rules; and the legal holds that keep them.

As in `worker.commands.service`, each imports what it runs when it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ValidationError

from wherefrom.errors import ConfigurationError
from wherefrom.records import ErasureDraft, HoldDraft, OutputClass, RetentionDraft, Severity
from wherefrom.records.explain import first_problem
from wherefrom.terminal import counted, say
from worker.commands.command_line import (
    EXIT_UNHEALTHY,
    Json,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)

Reason = Annotated[str, typer.Option("--reason", help="Why. It is kept for good: no personal data.")]
AuditIds = Annotated[list[int] | None, typer.Argument(metavar="[AUDIT_ID]...", help="Audits of the outputs.")]
Producer = Annotated[str | None, typer.Option(help="Who flagged them, exactly.")]
FlagReason = Annotated[str | None, typer.Option(help="The producer's reason, exactly.")]
OfSeverity = Annotated[Severity | None, typer.Option(help="How urgent the producer finds them.")]
OfModel = Annotated[str | None, typer.Option(help="The model revision that answered, exactly.")]
Channel = Annotated[str | None, typer.Option(help="How they arrived, such as http or stream.")]
ExternalId = Annotated[
    str | None, typer.Option("--external-id", help="The idempotency key that the producer gave.")
]
Label = Annotated[str | None, typer.Option(help="A label, as NAME=VALUE; for example who asked.")]
Since = Annotated[str | None, typer.Option(help="Received at or after: a day or an ISO 8601 time.")]
Until = Annotated[str | None, typer.Option(help="Received at or before; a day includes all of it.")]


def forget_example(
    example_ids: Annotated[
        list[str], typer.Argument(metavar="EXAMPLE_ID...", help="Ids of training examples.")
    ],
    *,
    reason: Reason,
    bundle: Annotated[
        str | None,
        typer.Option(help="Name or id of a bundle, where an id stands for different texts in several."),
    ] = None,
    copies: Annotated[
        bool, typer.Option("--copies", help="Also erase other examples that have exactly the same text.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="File with the private key that signs the new bundles.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Erase training examples: new bundles without them, tombstones in the database; old bundles are deleted when no lease uses them.

    Examples:
      python -m worker forget example vendor-7-0042 --reason "request 2026-17"
      python -m worker forget example vendor-7-0042 vendor-7-0043 --copies --reason "request 2026-17"
    """
    from db.audit_trail.trail import OPERATOR
    from worker.erasure.example_erasing import Request, forget

    settings = open_settings()
    asked = Request(tuple(example_ids), reason, bundle=bundle, copies=copies, key=key)
    with opened_database(settings) as database:
        found = forget(database, settings, asked, by=OPERATOR)
    if as_json:
        print_json(asdict(found))
        return
    say(f"{counted(len(found.example_ids), 'training example')} erased")
    for old, new in found.replaced.items():
        say(f"bundle {new} took the place of {old}{'' if key else '; it is not signed'}")
    for name in found.deleted:
        say(f"bundle {name} is deleted")
    for name in found.waiting:
        say(
            f"bundle {name} is still there; the sweeper, or python -m worker bundles prune, deletes it when no lease uses it"
        )
    for name in found.unseen:
        say(
            f"warning: the folder of bundle {name} is not on this machine, so nobody looked whether it holds the example; run the command where it is",
            to_stderr=True,
        )
    _say_left(cleaned=found.cleaned)
    say(
        "note: restart processes that had the old bundles loaded, and delete the folders that they were built in or copied to. Model weights, statistics and backups are not changed (docs/limitations.md)"
    )


def forget_output(  # noqa: PLR0913 - the conditions of a class, each an option
    audit_ids: AuditIds = None,
    *,
    reason: Reason,
    producer: Producer = None,
    flag_reason: FlagReason = None,
    severity: OfSeverity = None,
    model: OfModel = None,
    channel: Channel = None,
    external_id: ExternalId = None,
    label: Label = None,
    since: Since = None,
    until: Until = None,
    without_redis: Annotated[
        bool, typer.Option("--without-redis", help="Do not look for copies in the streams of Redis.")
    ] = False,
    preview: Annotated[
        bool, typer.Option("--preview", help="Say how many outputs would go, and erase nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase flagged outputs, by their audits or by a class. The audits and their numbers stay.

    Examples:
      python -m worker forget output --label user=u-1234 --reason "request 2026-17" --preview
      python -m worker forget output 17 18 --reason "request 2026-17"
      python -m worker forget output --producer chat --external-id chat-17 --reason "request 2026-17"
      python -m worker forget output --label user=u-1234 --reason "request 2026-17"
    """
    from db.audit_trail.trail import OPERATOR
    from db.erasure import cleaning, erasures
    from worker.broker.redis_link import connect_redis
    from worker.embedded import beside_local_service
    from worker.erasure.redis_erasing import CopiesInRedis

    given = _class(locals())
    draft = _valid(ErasureDraft, audit_ids=tuple(audit_ids or ()), outputs=given, reason=reason)
    settings = beside_local_service(open_settings())
    if preview:
        with opened_database(settings) as database:
            meant = erasures.count_meant(database, draft)
        if as_json:
            print_json({"outputs": meant})
        else:
            say(f"{counted(meant, 'output')} would be erased; nothing was")
        return
    with opened_database(settings) as database, connect_redis(settings) as client:
        before = (lambda _: None) if without_redis else CopiesInRedis(client, settings).erase
        asked = erasures.ask(database, draft, by=OPERATOR)
        found = erasures.carry_out(database, asked, before=before)
        cleaned = cleaning.clean(database)
    if as_json:
        print_json(found.model_dump(mode="json") | {"cleaned": cleaned})
    elif found.refused is not None:
        say(f"stopped: {found.refused}. {counted(found.erased, 'text')} erased before", to_stderr=True)
    else:
        say(f"{counted(found.erased, 'text')} erased, with what was supposed in their place")
        _say_left(cleaned=cleaned)
    if found.refused is not None:
        raise typer.Exit(EXIT_UNHEALTHY)


def _say_left(*, cleaned: bool) -> None:
    if not cleaned:
        say("note: somebody reads the database; the sweeper cleans its files later", to_stderr=True)


def _class(given: Mapping[str, Any]) -> OutputClass | None:
    """The class that options name; None where none does."""
    named = {name: given[name] for name in OutputClass.model_fields if given.get(name) is not None}
    if given.get("external_id") is not None:
        named["key"] = given["external_id"]
    for name in ("since", "until"):
        if name in named:
            named[name] = _moment(name, named[name])
    return _valid(OutputClass, **named) if named else None


def _moment(name: str, given: str) -> datetime:
    """A day or a time; without a time zone in UTC, and a day of `until` whole."""
    try:
        moment = datetime.fromisoformat(given)
    except ValueError as error:
        raise ConfigurationError(f"--{name}: not a day or an ISO 8601 time, such as 2026-01-31") from error
    if name == "until" and len(given) <= len("2026-01-31"):
        moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _valid(kind: Any, **given: Any) -> Any:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        where, what = first_problem(error)
        raise ConfigurationError(f"{where}: {what}" if where else what) from error


def holds_list(
    *,
    lifted: Annotated[bool, typer.Option("--lifted", help="Also those that were lifted.")] = False,
    as_json: Json = False,
) -> None:
    """List the legal holds.

    Examples:
      python -m worker holds
    """
    from db.erasure import holds

    with opened_database(open_settings()) as database:
        found = holds.listed(database, lifted=lifted)
    _print(
        found,
        [
            {
                "id": one.hold_id,
                "what": f"{counted(len(one.audit_ids), 'audit')}"
                if one.outputs is None
                else one.outputs.text(),
                "reason": one.reason,
                "placed": one.placed_at,
                "lifted": one.lifted_at,
            }
            for one in found
        ],
        empty="no legal hold",
        as_json=as_json,
    )


def holds_place(  # noqa: PLR0913 - the conditions of a class, each an option
    audit_ids: AuditIds = None,
    *,
    reason: Reason,
    producer: Producer = None,
    flag_reason: FlagReason = None,
    severity: OfSeverity = None,
    model: OfModel = None,
    channel: Channel = None,
    external_id: ExternalId = None,
    label: Label = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Hold outputs, by their audits or by a class. Nothing erases them, nor training examples that they cite, until it is lifted.

    A class also holds outputs that come later.

    Examples:
      python -m worker holds place 17 18 --reason "case 9"
      python -m worker holds place --flag-reason fraud --reason "case 9"
    """
    from db.audit_trail.trail import OPERATOR
    from db.erasure import holds

    given = _class(locals())
    draft = _valid(HoldDraft, audit_ids=tuple(audit_ids or ()), outputs=given, reason=reason)
    with opened_database(open_settings()) as database:
        made = holds.place(database, draft, by=OPERATOR)
    _print_one(made, f"legal hold {made.hold_id} is placed", as_json=as_json)


def holds_lift(
    hold_id: Annotated[int, typer.Argument(help="Id of the hold.")], *, reason: Reason, as_json: Json = False
) -> None:
    """Lift a legal hold. What a retention rule would have erased meanwhile is erased with its next look.

    Examples:
      python -m worker holds lift 3 --reason "case 9 was closed"
    """
    from db.audit_trail.trail import OPERATOR
    from db.erasure import holds

    with opened_database(open_settings()) as database:
        lifted = holds.lift(database, hold_id, reason=reason, by=OPERATOR)
    _print_one(lifted, f"legal hold {hold_id} is lifted", as_json=as_json)


def retention_list(
    *,
    ended: Annotated[bool, typer.Option("--ended", help="Also those that were ended.")] = False,
    as_json: Json = False,
) -> None:
    """List the retention rules.

    Examples:
      python -m worker retention
    """
    from db.erasure import retention

    with opened_database(open_settings()) as database:
        found = retention.listed(database, ended=ended)
    _print(
        found,
        [
            {
                "id": one.rule_id,
                "name": one.name,
                "what": one.outputs.text(),
                "days": one.days,
                "erased": one.erased,
                "looked": one.looked_at,
                "ended": one.ended_at,
            }
            for one in found
        ],
        empty="no retention rule; texts are kept until somebody erases them",
        as_json=as_json,
    )


def retention_add(  # noqa: PLR0913 - the conditions of a class, each an option
    name: Annotated[str, typer.Argument(help="Name of the rule, unique.")],
    *,
    days: Annotated[int, typer.Option(help="Days after an output was received when its text is erased.")],
    producer: Producer = None,
    flag_reason: FlagReason = None,
    severity: OfSeverity = None,
    model: OfModel = None,
    channel: Channel = None,
    label: Label = None,
    as_json: Json = False,
) -> None:
    """Add a rule: the sweeper erases texts of a class after some days. Without conditions, of every output; the shortest of several rules counts.

    Examples:
      python -m worker retention add everything --days 365
      python -m worker retention add "low after a month" --severity low --days 30
    """
    from db.audit_trail.trail import OPERATOR
    from db.erasure import retention

    given = _class(locals())
    draft = _valid(RetentionDraft, name=name, outputs=given or OutputClass(), days=days)
    with opened_database(open_settings()) as database:
        made = retention.add(database, draft, by=OPERATOR)
    _print_one(
        made,
        f"retention rule {made.rule_id}: {made.outputs.text()} is kept {counted(made.days, 'day')}; the sweeper begins within minutes",
        as_json=as_json,
    )


def retention_end(
    rule_id: Annotated[int, typer.Argument(help="Id of the rule.")], *, as_json: Json = False
) -> None:
    """End a retention rule. What it erased stays erased.

    Examples:
      python -m worker retention end 2
    """
    from db.erasure import retention

    with opened_database(open_settings()) as database:
        ended = retention.end(database, rule_id)
    _print_one(ended, f"retention rule {rule_id} is ended", as_json=as_json)


def _print_one(record: BaseModel, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(record.model_dump(mode="json"))
    else:
        say(text)


def _print(records: Sequence[BaseModel], rows: list[dict[str, Any]], *, empty: str, as_json: bool) -> None:
    if as_json:
        print_json([one.model_dump(mode="json") for one in records])
    else:
        print_rows(tuple(rows[0]) if rows else (), rows, empty=empty)


def add_forget_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    forget = typer.Typer(no_args_is_help=True, help="Erase training examples or flagged outputs.")
    forget.command("example")(forget_example)
    forget.command("output")(forget_output)
    app.add_typer(forget, name="forget", rich_help_panel="Maintenance")
    _add_group(app, "holds", holds_list, "Legal holds: what nothing erases.", holds_place, holds_lift)
    _add_group(
        app,
        "retention",
        retention_list,
        "Retention rules: texts that are erased after some days.",
        retention_add,
        retention_end,
    )


def _add_group(app: typer.Typer, name: str, listing: Any, text: str, *commands: Any) -> None:
    """A group that lists without a command, as `bundles` does."""
    group = typer.Typer(invoke_without_command=True, help=f"{text}\n\nExamples:\n  python -m worker {name}\n")

    @group.callback()
    def show(context: typer.Context, *, as_json: Json = False) -> None:
        if context.invoked_subcommand is None:
            listing(as_json=as_json)

    group.command("list")(listing)
    for command in commands:
        group.command(command.__name__.rpartition("_")[2])(command)
    app.add_typer(group, name=name, rich_help_panel="Maintenance")
