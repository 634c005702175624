"""Runs the command in this process and gives back what a shell would see."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.services.scripted import ScriptedService
from wherefrom.cli import main


@dataclass(frozen=True)
class Run:
    """One finished command."""

    code: int
    out: str
    err: str


@pytest.fixture
def service() -> Iterator[ScriptedService]:
    """A running service."""
    with ScriptedService() as one:
        yield one


@pytest.fixture
def run(
    service: ScriptedService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    """Runs the command with the service in its environment."""
    monkeypatch.setenv("WHEREFROM_SERVICE_URL", service.url)
    monkeypatch.setenv("COLUMNS", "200")

    def run_command(*arguments: str) -> Run:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        captured = capsys.readouterr()
        return Run(int(ended.value.code or 0), captured.out, captured.err)

    return run_command
