"""What the first view of every page costs the server: its time, its statements and its size, over the database of the demo.

    make demo ARGS=--exit
    python -m benchmarks.pages --database .wherefrom/demo/wherefrom.db

The database is copied, and gets a review queue, a fix list and verdicts, so that every page shows something. A page is asked for over ASGI in this process, once
for the first view and `--repeat` times again. `first` holds all: templates, statements, rendering. No request waits for a model.
"""

import argparse
import re
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from benchmarks.desk import noted_statements
from benchmarks.program import command, run
from db import migrate
from db.session import Database
from web.app import _ROUTERS, create_app
from web.wellness.health import SilentProbe
from wherefrom.errors import ConfigurationError
from wherefrom.logs import configure_logging
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

T = TypeVar("T")
#: Aim of the first view, milliseconds.
AIM_MS = 300.0
#: Pages that are forms' answers, files, or lead elsewhere.
_NO_PAGES = ("/v1/", "/static", "/healthz", "/readyz", "/metrics", "/openapi", "/docs", "/favicon", "/views/")
#: Pages with something to say only with a query.
_FURTHER = (
    "/?flag_reason=refund_promise&fdr=0.1",
    "/?text=refund",
    "/examples?text=refund",
    "/culprits?flag_reason=refund_promise",
)


def _work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if not arguments.database.is_file():
        raise ConfigurationError(f"{arguments.database} is no file; `make demo ARGS=--exit` makes one")
    shutil.copy(arguments.database, folder / "demo.db")
    url = f"sqlite:///{folder / 'demo.db'}"
    migrate.upgrade(url)
    db = Database(url)
    settings = Settings.model_validate({"database_url": url, "state_dir": folder / "state"})
    configure_logging(settings.model_copy(update={"log_level": "warning"}))
    app = create_app(settings, db, metrics=Metrics(), queue=SilentProbe())
    client = TestClient(app, base_url="http://127.0.0.1:8077", follow_redirects=False)
    fill(client)
    asked = [*dict.fromkeys([*_addresses(client), *_FURTHER])]
    found = {path: _measured(client, path, repeat=arguments.repeat) for path in asked}
    pages = {path: one for path, one in found.items() if one is not None}
    app.state.services.close()
    db.dispose()
    return {"pages": pages}


def fill(client: TestClient) -> None:
    """Let there be something on every page."""

    def post(path: str, **body: object) -> None:
        answer = client.post(path, json=body)
        if not answer.is_success:
            raise ConfigurationError(f"{path}: {answer.text}")

    post("/v1/review-queues", name="all", rule={})
    post("/v1/review-queues/1/next?reviewer=ann")
    post("/v1/audits/1/reviews?reviewer=ann", verdict="confirmed", rank=1)
    post("/v1/fix-lists?reviewer=ann", name="June")
    post("/v1/fix-lists/1/rows?reviewer=ann", culprits={}, most=100, reason="wrong")
    post("/v1/fix-lists/1/what-ifs", most=50)


def _addresses(client: TestClient) -> Iterator[str]:
    """Every page, with the first of each number."""
    source = client.get("/v1/sources").json()["items"][0]["source"]
    bundle = client.get("/v1/bundles").json()["items"][0]["name"]
    named = {"name": bundle, "bundle": bundle}
    for router in _ROUTERS:
        for route in router.routes:
            if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
                continue
            if route.path.startswith(_NO_PAGES) or route.path.endswith("/text"):
                continue
            path = re.sub(r"\{(\w+)(:\w+)?\}", lambda one: str(named.get(one[1], 1)), route.path)
            yield f"{path}?source={source}" if path == "/source" else path


def _measured(client: TestClient, path: str, *, repeat: int) -> dict[str, Any] | None:
    """Milliseconds, statements and bytes of a page; None where the address has no page."""
    with noted_statements() as statements:
        answer, took, busy = _timed(partial(client.get, path))
    if answer.status_code != 200 or "text/html" not in answer.headers["content-type"]:
        return None
    again = [_timed(partial(client.get, path)) for _ in range(repeat)]
    return {
        "first_ms": took,
        "first_cpu_ms": busy,
        "median_ms": statistics.median(one for _, one, _ in again),
        "cpu_ms": statistics.median(one for _, _, one in again),
        "statements": len(statements),
        "kib": len(answer.content) / 1024,
    }


def _timed(ask: Callable[[], T]) -> tuple[T, float, float]:
    """The answer, and its milliseconds and those of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = ask()
    return answer, 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def _table(result: dict[str, Any]) -> list[str]:
    lines = ["| page | first, ms | processor | again, ms | processor | statements | KiB |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for path, one in sorted(result["pages"].items(), key=lambda one: -one[1]["first_cpu_ms"]):
        over = " over the aim" if one["first_ms"] > AIM_MS else ""
        lines.append(
            f"| `{path}` | {one['first_ms']:.0f}{over} | {one['first_cpu_ms']:.0f} | {one['median_ms']:.0f} | {one['cpu_ms']:.0f} "
            f"| {one['statements']} | {one['kib']:.0f} |"
        )
    return lines


def main() -> None:
    """Ask for every page, print the table."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--database", type=Path, required=True, help="the SQLite file of the demo")
    parser.add_argument("--repeat", type=int, default=5, help="further times (default: %(default)s)")
    run(parser, _work, table=_table)


if __name__ == "__main__":
    main()
