"""Commands that build a bundle on several machines.

As in `worker.commands.service`, each imports what it runs when it runs; so do the options of `build`, which are those of `wherefrom build`.
"""

from typing import TYPE_CHECKING, Annotated

import typer

from wherefrom.errors import NotFound
from wherefrom.terminal import counted, say
from worker.commands.command_line import (
    Json,
    WithParent,
    open_settings,
    opened_database,
    print_json,
    print_rows,
)
from worker.loop import end_with_parent

if TYPE_CHECKING:
    from wherefrom.records import BuildProgress, SharedBuildRecord


def build(context: typer.Context) -> None:
    """Build a bundle on several machines. The options are those of `wherefrom build`.

    This command plans the corpus in parts, waits until build workers have read them, and writes the bundle. Run the same command again to continue.

    Examples:
      python -m worker build models/support --adapter models/lora --corpus train.jsonl --out bundles/support --shared /mnt/shared/build
      python -m worker build models/support --corpus s3://data/train.jsonl --out s3://data/bundles
    """
    from worker.commands.build_app import make_build_app

    code = make_build_app()(args=context.args, prog_name="python -m worker build", standalone_mode=False)
    if isinstance(code, int) and code:
        raise typer.Exit(code)


def build_worker(*, exit_with_parent: WithParent = None) -> None:
    """Run a build worker: it reads parts of corpora for `python -m worker build`, on any number of machines.

    The model must be in WHEREFROM_MODELS_DIR, or where the build has it. SIGTERM lets it finish its part; if it is killed, another worker reads the part.

    Examples:
      python -m worker build-worker
      WHEREFROM_WORKER_PROCESSES=8 WHEREFROM_MODELS_DIR=/srv/models python -m worker build-worker
    """
    settings = open_settings()
    if exit_with_parent is not None:
        end_with_parent(exit_with_parent)
    from worker.pool.builder import run_builder

    raise typer.Exit(run_builder(settings))


def list_builds(*, as_json: Json = False) -> None:
    """List the builds over several machines that are not finished.

    Examples:
      python -m worker builds
      python -m worker builds list --json
    """
    from db.bundles import shared_builds

    with opened_database(open_settings()) as database:
        rows = [_row(*one) for one in shared_builds.list_builds(database)]
    if as_json:
        print_json(rows)
    else:
        print_rows(
            ("id", "store", "waiting", "running", "done", "dead", "created_at"),
            rows,
            empty="no build over several machines is unfinished",
        )


def cancel(
    build_id: Annotated[int, typer.Argument(metavar="BUILD", help="Id of the build.")],
    *,
    as_json: Json = False,
) -> None:
    """Give a build up. Its parts are forgotten, and its files in the shared folder are deleted.

    Examples:
      python -m worker builds cancel 3
    """
    from db.audit_trail.trail import TrailKind
    from db.bundles import shared_builds
    from wherefrom.attribution.bundles.shared_files import delete_shared
    from wherefrom.storage import open_store

    with opened_database(open_settings()) as database:
        build = shared_builds.read_build(database, build_id)
        if not shared_builds.end_build(database, build_id, TrailKind.BUILD_CANCELLED):
            raise NotFound(f"build {build_id} does not exist")
        deleted = delete_shared(open_store(build.store))
    if as_json:
        print_json({"id": build_id, "deleted_files": deleted})
    else:
        say(f"build {build_id} is cancelled; {counted(deleted, 'file')} of {build.store} deleted")


def _row(build: "SharedBuildRecord", now: "BuildProgress") -> dict[str, object]:
    return {
        "id": build.build_id,
        "store": build.store,
        "parts": build.parts,
        "tokens": build.tokens,
        "tokens_done": now.tokens_done,
        "created_at": build.created_at,
        **now.model_dump(mode="json", exclude={"tokens_done"}),
    }


def add_build_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    passed_on = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(rich_help_panel="Run the service", context_settings=passed_on)(build)
    app.command("build-worker", rich_help_panel="Run the service")(build_worker)
    group = typer.Typer(
        invoke_without_command=True,
        help="""List the builds over several machines that are not finished, or give one up.

        Examples:
          python -m worker builds
          python -m worker builds cancel 3
        """,
    )

    @group.callback()
    def builds(context: typer.Context, *, as_json: Json = False) -> None:
        if context.invoked_subcommand is None:
            list_builds(as_json=as_json)

    group.command("list")(list_builds)
    group.command("cancel")(cancel)
    app.add_typer(group, name="builds", rich_help_panel="Maintenance")
