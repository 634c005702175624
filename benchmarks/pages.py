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
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

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
    asked = [*dict.fromkeys([*_addresses(fill(client)), *_FURTHER])]
    found = {path: _measured(client, path, repeat=arguments.repeat) for path in asked}
    pages = {path: one for path, one in found.items() if not isinstance(one, str)}
    left_out = {path: one for path, one in found.items() if isinstance(one, str)}
    app.state.services.close()
    db.dispose()
    return {"pages": pages, "left_out": left_out}


def fill(client: TestClient) -> dict[str, Any]:
    """Let there be something on every page; what stands in addresses, by the name of the parameter."""

    def post(path: str, **body: object) -> dict[str, Any]:
        answer = client.post(path, json=body)
        if not answer.is_success:
            raise ConfigurationError(f"{path}: {answer.text}")
        told: dict[str, Any] = answer.json()
        return told

    audit, other = (one["audit_id"] for one in _items(client, "/v1/audits?state=done&limit=2"))
    cited = client.get(f"/v1/audits/{audit}").json()["citations"]
    queue = post("/v1/review-queues", name="of this benchmark", rule={})["queue_id"]
    item = post(f"/v1/review-queues/{queue}/next?reviewer=ann")["items"][0]["item_id"]
    post(f"/v1/audits/{audit}/reviews?reviewer=ann", verdict="confirmed", rank=1)
    fix_list = post("/v1/fix-lists?reviewer=ann", name="of this benchmark")["list_id"]
    post(f"/v1/fix-lists/{fix_list}/rows?reviewer=ann", culprits={}, most=100, reason="wrong")
    bundle = _items(client, "/v1/bundles")[0]["name"]
    return {
        "audit_id": audit,
        "other_audit_id": other,
        "training_example_id": cited[0]["training_example_id"],
        "queue_id": queue,
        "item_id": item,
        "list_id": fix_list,
        "what_if_id": post(f"/v1/fix-lists/{fix_list}/what-ifs", most=50)["items"][0]["what_if_id"],
        "finding_id": next((one["finding_id"] for one in _items(client, "/v1/findings")), 0),
        "source": _items(client, "/v1/sources")[0]["source"],
        "name": bundle,
        "bundle": bundle,
    }


def _items(client: TestClient, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(path).json()["items"]
    return found


def _addresses(named: dict[str, Any]) -> Iterator[str]:
    """Every page, with a number that is there for each parameter."""
    for router in _ROUTERS:
        for route in router.routes:
            if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
                continue
            if route.path.startswith(_NO_PAGES) or route.path.endswith("/text"):
                continue
            path = re.sub(r"\{(\w+)(:\w+)?\}", lambda one: quote(str(named[one[1]])), route.path)
            yield f"{path}?{urlencode({'source': named['source']})}" if path == "/source" else path


def _measured(client: TestClient, path: str, *, repeat: int) -> dict[str, Any] | str:
    """Milliseconds, statements and bytes of a page; where the address has none, what it answers."""
    with noted_statements() as statements:
        answer, took, busy = _timed(partial(client.get, path))
    kind = answer.headers.get("content-type", "nothing")
    if answer.status_code != HTTPStatus.OK or "text/html" not in kind:
        return f"{answer.status_code}, {kind}"
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
    return [*lines, *(f"left out: `{path}` ({why})" for path, why in result["left_out"].items())]


def main() -> None:
    """Ask for every page, print the table."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--database", type=Path, required=True, help="the SQLite file of the demo")
    parser.add_argument("--repeat", type=int, default=5, help="further times (default: %(default)s)")
    run(parser, _work, table=_table)


if __name__ == "__main__":
    main()
