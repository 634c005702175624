"""Puts the `wherefrom` command together: commands of the service, and those of the engine where it is installed."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from wherefrom.cli import (
    asking_groups,
    comparing,
    export,
    findings,
    fix_work,
    fixing,
    flagging,
    lists,
    measuring,
    queues,
    report,
    reviewing,
    service,
    sources,
    supposing,
    today,
    trail,
)
from wherefrom.cli.output import ExitCode, exit_code_of, print_error
from wherefrom.errors import ConfigurationError, WherefromError
from wherefrom.masking import install_masked_tracebacks
from wherefrom.settings import masked
from wherefrom.terminal import say
from wherefrom.threads import sleep_while_waiting
from wherefrom.version import __version__

#: Commands that need the engine; their module is imported when one of them runs, because torch takes seconds.
ENGINE_COMMANDS = {
    "build": "Build a bundle from a model and its training corpus",
    "attribute": "Cite training examples for the outputs in a file",
    "bundle": "Verify and sign bundles, erase or add training examples",
    "bank": "Retrain a model on random halves of its corpus",
    "recipe": "Write the recipe of a fine-tune from its folder",
    "calibrate": "Write a calibrated copy of a bundle",
    "evaluate": "Measure a bundle and write its card",
    "reproduce": "Compute a citation again from its bundle",
    "fix-list-clean": "Write the corpus without the rows of a fix list",
}
#: Where an engine command lives, if not in `wherefrom.cli.offline`.
_ENGINE_MODULES = {
    "bank": "wherefrom.cli.retraining",
    "recipe": "wherefrom.cli.retraining",
    "calibrate": "wherefrom.cli.calibrating",
    "evaluate": "wherefrom.cli.evaluating",
    "reproduce": "wherefrom.cli.reproducing",
    "fix-list-clean": "wherefrom.cli.cleaning",
}

HELP = """Find the training examples that taught a language model a flagged output.

build, attribute, bundle, bank, recipe, calibrate and evaluate work on files, without a service. They need the extra "wherefrom[engine]".

The other commands ask a service. --url or WHEREFROM_SERVICE_URL gives its address (default: http://127.0.0.1:8077), and WHEREFROM_API_KEY the API key.

Exit codes: 0 ok, 1 some records were refused, 2 wrong usage or bad input, 3 the service is unavailable, 4 not found.
"""


def make_app() -> typer.Typer:
    """The whole command."""
    app = typer.Typer(
        name="wherefrom",
        help=HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback(help=HELP)(_global_options)
    for name, command in SERVICE_COMMANDS.items():
        app.command(name, help=_help_of(command), short_help=_short_help_of(command))(command)
    for name, text in ENGINE_COMMANDS.items():
        passed_on = {"ignore_unknown_options": True, "allow_extra_args": True}
        command = app.command(name, help=text, add_help_option=False, context_settings=passed_on)
        command(_engine_command(name))
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; an error of wherefrom is one line on stderr and an exit code, never a traceback.

    Args:
        arguments: What stands after the program's name; those of the process where it is None.
    """
    install_masked_tracebacks(masked)
    sleep_while_waiting()
    try:
        make_app()(args=None if arguments is None else list(arguments), prog_name="wherefrom")
    except WherefromError as error:
        print_error(error)
        sys.exit(exit_code_of(error))
    except OSError as error:
        if error.filename is None:
            raise
        print_error(ConfigurationError(f"{error.filename}: {error.strerror or error}"))
        sys.exit(ExitCode.BAD_INPUT)


#: Commands that ask a service.
SERVICE_COMMANDS: dict[str, Callable[..., None]] = {
    "flag": flagging.flag,
    "group": asking_groups.group,
    "audits": service.audits,
    "show": service.show,
    "cited-by": service.cited_by,
    "sources": service.sources,
    "source": sources.source,
    "search": sources.search,
    "queue": service.queue,
    "today": today.today,
    "bundles": service.bundles,
    "export": export.export,
    "trail": trail.trail,
    "report": report.report,
    "measure": measuring.measure,
    "suppose": supposing.suppose,
    "hypotheticals": supposing.hypotheticals,
    "compare": comparing.compare,
    "bulk": lists.bulk,
    "views": lists.views,
    "view-save": lists.view_save,
    "view-delete": lists.view_delete,
    "queues": reviewing.queues,
    "queue-create": reviewing.queue_create,
    "queue-add": reviewing.queue_add,
    "queue-items": queues.queue_items,
    "queue-people": queues.queue_people,
    "queue-assign": queues.queue_assign,
    "queue-unassign": queues.queue_unassign,
    "queue-remove": queues.queue_remove,
    "queue-restore": queues.queue_restore,
    "queue-fill": queues.queue_fill,
    "queue-close": queues.queue_close,
    "people": queues.people,
    "agreement": queues.agreement,
    "review-next": reviewing.review_next,
    "review": reviewing.review,
    "review-blind": queues.review_blind,
    "reviews": reviewing.reviews,
    "review-undo": reviewing.review_undo,
    "culprits": fixing.culprits,
    "findings": findings.findings,
    "finding": findings.finding,
    "finding-rename": findings.finding_rename,
    "finding-merge": findings.finding_merge,
    "finding-take-out": findings.finding_take_out,
    "finding-split": findings.finding_split,
    "finding-ask": findings.finding_ask,
    "fix-lists": fixing.fix_lists,
    "fix-list-create": fixing.fix_list_create,
    "fix-list-add": fixing.fix_list_add,
    "fix-list-rows": fixing.fix_list_rows,
    "fix-list-history": fix_work.fix_list_history,
    "fix-list-give": fix_work.fix_list_give,
    "fix-list-close": fix_work.fix_list_close,
    "what-if": fixing.what_if,
    "what-ifs": fix_work.what_ifs,
    "what-if-show": fix_work.what_if_show,
    "what-if-measure": fix_work.what_if_measure,
}


def _help_of(command: Callable[..., None]) -> str:
    """A command's docstring, with the lines of its examples kept apart."""
    return inspect.cleandoc(command.__doc__ or "").replace("\nExamples:\n", "\n\b\nExamples:\n")


def _short_help_of(command: Callable[..., None]) -> str:
    """The first clause of a command's docstring, which fits on a line of the list."""
    return re.split(r"[;:.]", command.__doc__ or "", maxsplit=1)[0]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - Typer passes it so
    if wanted:
        say(__version__)
        raise typer.Exit


def _global_options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options of the command as a whole; `--version` acts by its callback."""
    del version


def _engine_command(name: str) -> Callable[[typer.Context], None]:
    def run(context: typer.Context) -> None:
        code = _engine_app(name)(args=[name, *context.args], prog_name="wherefrom", standalone_mode=False)
        if isinstance(code, int) and code:
            raise typer.Exit(code)

    return run


def _engine_app(name: str) -> typer.Typer:
    """The commands of the module that has this one; it has `add_commands(app)`.

    Raises:
        ConfigurationError: the engine is not installed.
    """
    try:
        module = importlib.import_module(_ENGINE_MODULES.get(name, "wherefrom.cli.offline"))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("wherefrom"):
            raise
        raise ConfigurationError(
            f'`wherefrom {name}` needs the engine ({error.name} is missing): pip install "wherefrom[engine]"'
        ) from error
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.callback()(lambda: None)
    module.add_commands(app)
    return app
