"""The command as a whole: help, version, the engine's commands, mistakes without a traceback."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import typer

from tests.unit.cli.conftest import Run
from wherefrom.cli.app import ENGINE_COMMANDS, SERVICE_COMMANDS

RunCommand = Callable[..., Run]
CHECKOUT = Path(__file__).parents[3]
COMMANDS = tuple(SERVICE_COMMANDS)


def test_help_lists_every_command(run: RunCommand) -> None:
    """The list of commands names those of the service and those of the engine, and the exit codes."""
    shown = run("--help")
    assert shown.code == 0
    for expected in (
        *COMMANDS,
        "build",
        "attribute",
        "bundle",
        "bank",
        "Exit codes: 0 ok, 1",
        "wherefrom[engine]",
    ):
        assert expected in shown.out
    assert "..." not in shown.out.split("Commands:")[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(run: RunCommand, command: str) -> None:
    """Each command shows examples, each on its own line, and prints records with `--json`."""
    shown = run(command, "--help")
    assert shown.code == 0
    assert f"  Examples:\n    {'wherefrom ' + command}" in shown.out
    assert "--json" in shown.out


@pytest.mark.parametrize("command", sorted(ENGINE_COMMANDS))
def test_engine_commands_are_where_the_app_looks(run: RunCommand, command: str) -> None:
    """Each of them explains itself, by its own module."""
    shown = run(command, "--help")
    assert shown.code == 0, shown.err
    assert f"Usage: wherefrom {command}" in shown.out
    told = run(command, "verify", "--help").out if command == "bundle" else shown.out
    assert re.search(rf"Examples?:\s+wherefrom {command} ", told), "its help has no example"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_and_options(
    run: RunCommand, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """What a shell's script asks for is answered without a service, and the script itself names the command."""

    def asked(words: str, wanted: str) -> str:
        monkeypatch.setenv("_WHEREFROM_COMPLETE", f"{wanted}_{shell}")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words)
        monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
        return run().out

    assert "fix-list-add" in asked("wherefrom fix-l", "complete")
    assert "--reason" in asked("wherefrom audits --rea", "complete")
    assert "critical" in asked("wherefrom audits --severity ", "complete")
    assert "_WHEREFROM_COMPLETE" in asked("", "source")


def test_a_file_that_cannot_be_read_is_no_traceback(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the system refuses is told with the file's name and exit code 2."""

    def refuse() -> typer.Typer:
        raise PermissionError(13, "Permission denied", "secret.jsonl")

    monkeypatch.setattr("wherefrom.cli.app.make_app", refuse)
    done = run("queue")
    assert done.code == 2
    assert done.err.strip() == "error[configuration]: secret.jsonl: Permission denied"


def test_version(run: RunCommand) -> None:
    """The version is one word."""
    assert run("--version").out == "0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["show", "seven"], ["show", "0"], ["audits", "--state", "lost"], ["export"], ["flag"]],
)
def test_wrong_usage(run: RunCommand, arguments: list[str]) -> None:
    """Wrong usage is exit code 2 and a hint, never a traceback."""
    done = run(*arguments)
    assert done.code == 2
    assert "Try 'wherefrom" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "value"), [("WHEREFROM_PORT", "many"), ("WHEREFROM_SERVICE_URL", "nowhere")]
)
def test_unusable_setting(run: RunCommand, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A setting that cannot be used is one line that names it."""
    monkeypatch.setenv(name, value)
    done = run("queue")
    assert done.code == 2
    assert done.err.startswith("error[configuration]: ")
    assert value in done.err or name in done.err


def test_missing_engine(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the engine its commands say what to install."""

    def import_module(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named 'torch' (for {name})", name="torch")

    monkeypatch.setattr("wherefrom.cli.app.importlib.import_module", import_module)
    done = run("build", "--model", "m", "--out", "b")
    assert done.code == 2
    assert (
        '`wherefrom build` needs the engine (torch is missing): pip install "wherefrom[engine]"' in done.err
    )


def test_engine_gets_its_arguments(run: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options and help of the engine's commands are passed on as they are, exit codes and errors come back."""

    def build(corpus: str, *, form: str = "auto", fail: bool = False) -> None:
        """Build something."""
        if fail:
            raise typer.Exit(3)
        typer.echo(f"{corpus} {form}")

    def add_commands(app: typer.Typer) -> None:
        app.command("build")(build)

    offline = ModuleType("wherefrom.cli.offline")
    offline.add_commands = add_commands  # type: ignore[attr-defined]  # a module made up for the test
    monkeypatch.setitem(sys.modules, "wherefrom.cli.offline", offline)
    assert run("build", "--form", "forward", "corpus.jsonl").out == "corpus.jsonl forward\n"
    assert "Build something" in run("build", "--help").out
    assert run("build", "x", "--fail").code == 3
    assert run("build").code == 2


def test_imports_stay_light() -> None:
    """The client and the command import no torch, no transformers, no SQLAlchemy and no pyarrow."""
    code = (
        "import sys, wherefrom.client, wherefrom.cli\n"
        "heavy = {'torch', 'transformers', 'sqlalchemy', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
