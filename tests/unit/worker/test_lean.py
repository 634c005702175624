"""What the processes of the service import: five start at once, and health checks ask every few seconds in each container."""

import json
import subprocess
import sys

import pytest

from tests.integration.worker.processes import ROOT

HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "sqlalchemy",
    "alembic",
    "celery",
    "redis",
    "httpcore",
    "httpx",
    "uvicorn",
}


def imported(code: str) -> set[str]:
    """Names of the top-level packages that are loaded after some code, in a process of its own."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{one.partition('.')[0] for one in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "needed"),
    [
        ("from worker.__main__ import make_app; make_app()", set()),
        ("import worker.checkup.health", set()),
        ("import worker.processes", {"sqlalchemy", "celery", "redis"}),
        ("import worker.web_server", {"sqlalchemy", "alembic", "celery", "redis", "uvicorn"}),
        ("import db.migrate", {"sqlalchemy", "alembic"}),
    ],
    ids=["command line", "health", "intake, sweeper and worker", "web", "migrate"],
)
def test_a_process_imports_what_it_needs(code: str, needed: set[str]) -> None:
    """Each of these packages costs a tenth of a second to some seconds of every start."""
    assert imported(code) & HEAVY == needed


def test_bundles_are_handled_without_torch() -> None:
    """Adding, backing up and erasing read texts and hashes; the extra [service] has no torch, and its import takes seconds."""
    code = "import worker.bundles, worker.backup, worker.erasure.example_erasing, worker.pool.effect_meter"
    assert not imported(code) & {"torch", "transformers"}
