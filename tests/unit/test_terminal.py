"""What both command lines write: hostile names are shown, never obeyed."""

import ast
from functools import partial
from pathlib import Path

import pytest

from wherefrom import terminal
from wherefrom.errors import ConfigurationError, DatabaseUnavailable
from worker.commands.command_line import print_json, print_rows, run_command_line

ROOT = Path(__file__).parents[2]

#: Escape sequences, C1 controls, turned directions, hidden letters, forged lines, the markup of rich and its emoji.
HOSTILE = (
    "\x1b[31mred\x1b[0m", "\x1b]0;owned\x07", "\x9b31m", "a\u202eb", "\u2066x", "\u200bx", "\ufeffx", "a\nforged", "a\r\nforged",
    "a\tb", "a\x0bb", "\u2028x", "\U000e0041x", "\x00x", "\x7fx", "[red]x[/red]", "[/]", "[link=http://evil.example]x[/link]", ":bomb:",
)  # fmt: skip


def _is_harmless(text: str) -> bool:
    """Only what moves nothing: letters, and the line breaks that end lines."""
    return text == terminal.visible(text, keep="\n")


def _raise(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("name", HOSTILE)
def test_tables_show_hostile_names(capsys, name):
    """In both command lines: as one cell on one line, markup as it stands."""
    rows = {"name": name, "producer": f"x{name}", "scopes": (name, "read"), "model": None}
    print_rows(tuple(rows), [rows], empty="")
    terminal.print_table([("name", "left"), ("n", "right")], [(name, "1")], empty="")
    said = capsys.readouterr().out
    assert _is_harmless(said)
    assert len(said.splitlines()) == 4
    assert said.count(terminal.visible(name).strip()) == 4


@pytest.mark.parametrize("name", HOSTILE)
def test_sentences_and_errors_show_hostile_names(capsys, name):
    """A name of a bundle or a text of a database stands in them; a sentence stays one line."""
    terminal.say(f"the key {name} is revoked")
    terminal.say(f"warning: {name}", to_stderr=True)
    for error in (ConfigurationError(f"{name} is unusable"), DatabaseUnavailable(name)):
        with pytest.raises(SystemExit):
            run_command_line(partial(_raise, error))
    print_json({"name": name})
    said = capsys.readouterr()
    assert _is_harmless(said.out + said.err)
    assert said.out.isascii() or not name.isascii()
    assert len(said.out.splitlines()) == 2


def test_nothing_goes_around_it():
    """`typer.echo` writes what it gets: elsewhere it may print JSON only, which is ASCII."""
    for path in [*ROOT.glob("wherefrom/cli/*.py"), *ROOT.glob("worker/**/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in ("typer.echo", "click.echo", "print"):
                assert ast.unparse(call.args[0]).startswith("json.dumps("), (path.name, call.lineno)
                assert "ensure_ascii" not in ast.unparse(call), (path.name, call.lineno)
