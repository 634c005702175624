"""Commands that run the service: everything at once, or one process of it.

Each command imports what it runs when it runs: five processes start at once, and health checks every few seconds.
"""

import time
from typing import Annotated

import typer

from wherefrom.settings import Settings
from wherefrom.terminal import say
from worker.checkup.health import CHECKS, check_health
from worker.commands.command_line import EXIT_UNHEALTHY, Json, WithParent, open_settings, print_json
from worker.loop import end_with_parent, stop_on_signals

Host = Annotated[str | None, typer.Option(help="Address to bind, instead of WHEREFROM_HOST.")]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port, instead of WHEREFROM_PORT; 0 picks a free one.")
]

Number = Annotated[
    int | None,
    typer.Option("--number", hidden=True, min=1, help="Which of the web processes that share one port."),
]
After = Annotated[
    float,
    typer.Option(
        "--after",
        hidden=True,
        min=0.0,
        help="Seconds to wait before the start, so that not all processes start at once.",
    ),
]


def up(*, host: Host = None, port: Port = None) -> None:
    """Run the whole service on this machine: Redis, schema, worker, sweeper, intake and web.

    wherefrom starts its own Redis (in the state folder) unless WHEREFROM_REDIS_URL is set. Ctrl-C stops everything cleanly.

    Examples:
      python -m worker up
      WHEREFROM_WORKER_PROCESSES=2 python -m worker up --port 9000
    """
    from worker.supervise import POLL_S, LocalService

    settings = open_settings()
    stop = stop_on_signals()
    with LocalService(settings, overrides=_address(host, port)) as service:
        shown = False
        while not stop.wait(POLL_S):
            service.watch()
            if not shown and (url := service.web_url()):
                say(f"wherefrom is at {url} (Ctrl-C stops it)")
                shown = True
        say("stopping: web and intake first, then sweeper and worker, which finish their work")


def migrate(*, as_json: Json = False) -> None:
    """Bring the database to the schema of this release. A newer schema is not changed.

    Exit code 2: the schema is newer than this release and not declared compatible with it.

    Examples:
      python -m worker migrate
    """
    from db.migrate import upgrade

    schema = upgrade(open_settings().database_url.get_secret_value())
    if as_json:
        print_json({"current": schema.current, "head": schema.head, "standing": schema.standing})
    else:
        say(schema.text)


def intake(*, exit_with_parent: WithParent = None, after: After = 0.0) -> None:
    """Take flagged outputs from the Redis stream into the database.

    Examples:
      python -m worker intake
    """
    settings = _begin(exit_with_parent=exit_with_parent, after_s=after)
    from worker.processes import run_intake

    run_intake(settings, stop_on_signals())


def run(*, exit_with_parent: WithParent = None) -> None:
    """Run a worker that attributes audits in WHEREFROM_WORKER_PROCESSES processes.

    SIGTERM lets it finish its batches. Exit code 1: it stalled; start it again.

    Examples:
      python -m worker run
      WHEREFROM_WORKER_PROCESSES=4 python -m worker run
    """
    settings = _begin(exit_with_parent=exit_with_parent)
    from worker.processes import run_worker

    raise typer.Exit(run_worker(settings))


def measure(*, exit_with_parent: WithParent = None) -> None:
    """Run the measuring worker. It retrains the model to measure effects, one at a time, and needs WHEREFROM_RECIPE.

    SIGTERM lets it finish its measurement; killing it loses only the training in progress. Exit code 1: it stalled; start
    it again.

    Examples:
      WHEREFROM_RECIPE=recipe.json WHEREFROM_BASE_MODEL_DIR=models/base python -m worker measure
    """
    settings = _begin(exit_with_parent=exit_with_parent)
    from worker.pool.measurer import run_measurer

    raise typer.Exit(run_measurer(settings))


def sweep(*, exit_with_parent: WithParent = None, after: After = 0.0) -> None:
    """Queue the audits of dead workers again, and keep hints on the queue while there is work.

    Examples:
      python -m worker sweep
    """
    settings = _begin(exit_with_parent=exit_with_parent, after_s=after)
    from worker.processes import run_sweeper

    run_sweeper(settings, stop_on_signals())


def web(
    *, host: Host = None, port: Port = None, exit_with_parent: WithParent = None, number: Number = None
) -> None:
    """Serve the HTTP API and the pages, in WHEREFROM_WEB_PROCESSES processes.

    Examples:
      python -m worker web
      python -m worker web --host 0.0.0.0 --port 8080
      WHEREFROM_WEB_PROCESSES=2 python -m worker web
    """
    settings = _begin(exit_with_parent=exit_with_parent).model_copy(update=_address(host, port))
    if number is None and settings.web_processes > 1:
        from worker.web_processes import run_web_processes

        run_web_processes(settings)
    else:
        from worker.web_server import run_web

        run_web(settings, number=number)


def health(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(CHECKS)}.")], *, as_json: Json = False
) -> None:
    """Check one part of the service. Exit code 0 is healthy, 1 is not; for the health checks of containers.

    Examples:
      python -m worker health intake
      python -m worker health database --json
    """
    answer = check_health(name, open_settings())
    if as_json:
        print_json({"name": answer.name, "well": answer.well, "text": answer.text})
    else:
        say(f"{answer.name}: {'well' if answer.well else 'UNWELL'}, {answer.text}")
    if not answer.well:
        raise typer.Exit(EXIT_UNHEALTHY)


def _begin(*, exit_with_parent: int | None, after_s: float = 0.0) -> Settings:
    """What each process of the service does before its imports, which take a second: settings, logs, an eye on its parent, its turn."""
    settings = open_settings()
    if exit_with_parent is not None:
        end_with_parent(exit_with_parent)
    time.sleep(after_s)
    return settings


def _address(host: str | None, port: int | None) -> dict[str, str | int]:
    """The settings that were given as options."""
    given = {"host": host, "port": port}
    return {name: value for name, value in given.items() if value is not None}


def add_service_commands(app: typer.Typer) -> None:
    """Put the commands of this file on the command line."""
    for command in (up, migrate, intake, run, measure, sweep, web, health):
        app.command(rich_help_panel="Run the service")(command)
