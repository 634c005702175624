"""Commands about bundles: add one, list them, choose which explains a model.

As in `worker.commands.service`, each imports what it runs when it runs.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from wherefrom.errors import ConfigurationError, UnusableModel
from wherefrom.records import BundleInfo
from wherefrom.settings import Settings
from wherefrom.terminal import counted, say
from worker.commands.command_line import (
    EXIT_UNHEALTHY,
    Json,
    hint_at,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)

if TYPE_CHECKING:
    from db.bundles.routing import Moved

Named = Annotated[str, typer.Argument(metavar="BUNDLE", help="Name or id of the bundle.")]


def add_bundle(
    path: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="Folder of the bundle, or its URL: s3://BUCKET/PREFIX/NAME."),
    ],
    *,
    activate: Annotated[
        bool, typer.Option("--activate/--no-activate", help="Send the model's new audits to it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Check a bundle, copy it to where the bundles are and register it. Audits that wait for its model are queued.

    A bundle at a URL is fetched. Where WHEREFROM_BUNDLES_DIR is a URL, a folder is uploaded.

    Examples:
      python -m worker add-bundle build/support-bundle
      python -m worker add-bundle build/support-bundle --no-activate
      python -m worker add-bundle s3://audits/bundles/b-0123456789abcdef
    """
    from db.bundles import catalogue
    from db.queues.audit_queue import AuditQueue
    from worker.bundles import add_bundle as put_into_service

    settings = open_settings()
    with opened_database(settings) as database:
        bundle_id, manifest = put_into_service(database, settings, path, activate=activate)
        _warn_of_missing_model(catalogue.bundle_by_id(database, bundle_id), settings)
        hint_at(settings, AuditQueue(database).pending_counts())
    if as_json:
        print_json({"id": bundle_id, "name": manifest.name, "model": manifest.model.name, "active": activate})
    else:
        say(
            f"bundle {manifest.name} (id {bundle_id}) is registered and {'explains' if activate else 'not active for'} {manifest.model.name}"
        )


def list_bundles(*, as_json: Json = False) -> None:
    """List the registered bundles, and where each is: in the bundles folder, in object storage, on this machine.

    Examples:
      python -m worker bundles
      python -m worker bundles list --json
    """
    from db.bundles import catalogue
    from worker.bundle_homes import where_bundles_are

    settings = open_settings()
    with opened_database(settings) as database:
        rows = [bundle.model_dump(mode="json") for bundle in catalogue.list_bundles(database)]
    where = where_bundles_are(settings, [row["name"] for row in rows])
    rows = [row | {"where": where[row["name"]]} for row in rows]
    if as_json:
        print_json(rows)
    else:
        print_rows(
            ("id", "name", "model", "form", "corpus_examples", "active", "where", "created_at"),
            rows,
            empty="no bundle is registered",
        )


def activate(bundle: Named, *, as_json: Json = False) -> None:
    """Make a bundle the active one of its model. Pending audits of the model's other bundles move to it.

    An audit does not move if its output was also audited under another bundle.

    Examples:
      python -m worker bundles activate support-v1-9f2c
      python -m worker bundles activate 3
    """
    from db.bundles import catalogue, routing
    from db.queues.audit_queue import AuditQueue

    settings = open_settings()
    with opened_database(settings) as database:
        known = catalogue.find_bundle(database, bundle)
        moved = routing.activate(database, known.id)
        _warn_of_missing_model(known, settings)
        hint_at(settings, AuditQueue(database).pending_counts())
    _print_moved(known, moved, "active", as_json=as_json)


def retire(bundle: Named, *, as_json: Json = False) -> None:
    """Send no more audits to a bundle. Its answers are kept, and running audits are finished.

    Pending audits are rejected (unknown_model) and queued again when another bundle of their model is active.

    Examples:
      python -m worker bundles retire support-v1-9f2c
    """
    from db.bundles import catalogue, routing

    with opened_database(open_settings()) as database:
        known = catalogue.find_bundle(database, bundle)
        moved = routing.retire(database, known.id)
    _print_moved(known, moved, "retired", as_json=as_json)


def fetch(
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE", help="Name or id of one bundle; default: all active ones."),
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Fetch active bundles from object storage to this machine before a worker asks for them. One that is here is checked.

    Examples:
      python -m worker bundles fetch
      python -m worker bundles fetch support-v1-9f2c
    """
    from db.bundles import catalogue
    from worker.bundle_homes import hold_bundle

    settings = open_settings()
    if settings.bundles_url is None:
        raise ConfigurationError("bundles are in a folder; WHEREFROM_BUNDLES_DIR is no URL")
    with opened_database(settings) as database:
        wanted = (
            catalogue.active_bundles(database)
            if bundle is None
            else [catalogue.find_bundle(database, bundle)]
        )
    for one in wanted:
        hold_bundle(settings, one.name).release()
        if not as_json:
            say(f"bundle {one.name} is in {settings.bundles_dir}")
    if as_json:
        print_json({"fetched": [one.name for one in wanted]})


def prune(*, as_json: Json = False) -> None:
    """Delete bundles that hold an erased training example, as the sweeper does: folders, copies, what is in object storage. For machines without a sweeper, and where it may not write.

    Examples:
      python -m worker bundles prune
    """
    from worker.erasure.bundle_deletion import delete_unused

    settings = open_settings()
    with opened_database(settings) as database:
        deleted = delete_unused(database, settings)
    if as_json:
        print_json({"deleted": deleted})
    else:
        say("\n".join(f"bundle {name} is deleted" for name in deleted) or "nothing to delete on this machine")


def _print_moved(bundle: BundleInfo, moved: "Moved", now: str, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "id": bundle.id,
                "name": bundle.name,
                "model": bundle.model,
                "active": now == "active",
                "queued": moved.queued,
                "without_bundle": moved.without_bundle,
            }
        )
        return
    say(f"bundle {bundle.name} (id {bundle.id}) of {bundle.model} is {now}")
    if moved.queued:
        say(f"{counted(moved.queued, 'pending audit')} moved to the active bundle")
    if moved.without_bundle:
        say(
            f"{counted(moved.without_bundle, 'pending audit')} rejected (unknown_model); queued again when a bundle of {bundle.model} is active"
        )


def _warn_of_missing_model(bundle: BundleInfo, settings: Settings) -> None:
    """Workers may run elsewhere, so it is no error here."""
    from worker.pool.engine import load_engine

    try:
        load_engine(settings).check_model(bundle)
    except UnusableModel as error:
        say(f"warning: {error}. Workers of this machine refuse the bundle until then.", to_stderr=True)


def reproduce(
    citation: Annotated[
        str, typer.Argument(help="AUDIT/RANK, such as 17/1, or the address of a citation on a page.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Compute a citation again from the bundle that it names. Nothing is queued and nothing is stored.

    The answer is same, different (with every score that lies farther apart than rounding explains) or erased. Exit code 1 if it is different.

    Examples:
      python -m worker reproduce 17/1
      python -m worker reproduce 17/-1 --json
    """
    from wherefrom.records.lineage import CitationAddress, Reproduced
    from worker.pool.engine import engine_of_process
    from worker.reproducing import reproduce as compute_again

    address, settings = CitationAddress.parse(citation), open_settings()
    with opened_database(settings) as database:
        found = compute_again(database, engine_of_process(settings), settings, address)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        say(f"{found.verdict.value}: citation {address} ({found.example_id}) of bundle {found.bundle}")
        say(found.text)
    if found.verdict is Reproduced.DIFFERENT:
        raise typer.Exit(EXIT_UNHEALTHY)


def add_bundle_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    for command in (add_bundle, reproduce):
        app.command(rich_help_panel="Maintenance")(command)
    group = typer.Typer(
        invoke_without_command=True,
        help="""List the registered bundles, or choose the one that explains a model.

        Examples:
          python -m worker bundles
          python -m worker bundles activate support-bundle-3
        """,
    )

    @group.callback()
    def bundles(context: typer.Context, *, as_json: Json = False) -> None:
        if context.invoked_subcommand is None:
            list_bundles(as_json=as_json)

    group.command("list")(list_bundles)
    group.command("activate")(activate)
    group.command("retire")(retire)
    group.command("fetch")(fetch)
    group.command("prune")(prune)
    app.add_typer(group, name="bundles", rich_help_panel="Maintenance")
