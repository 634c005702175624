"""How the command line speaks: exit codes, tables, JSON lines, errors, progress.

Everything that comes from a record or from the service passes `visible` before it reaches a terminal: a flagged output
may hold escape sequences, and they are evidence to be seen, not obeyed.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from wherefrom.errors import NotFound, TransientError, WherefromError

#: Width of tables that do not go to a terminal.
FILE_WIDTH = 160
#: Joiners of scripts and emoji; alone among the format characters they move nothing on the screen.
_JOINERS = "\u200c\u200d"


class ExitCode(IntEnum):
    """What a script can rely on; the documentation lists the same."""

    OK = 0
    #: Some records were skipped or refused; the others were taken.
    REFUSED = 1
    #: A wrong option, unreadable input, a missing extra, a refused API key: nothing was done.
    BAD_INPUT = 2
    #: The service does not answer or cannot work now; the same command again is harmless.
    UNAVAILABLE = 3
    #: The audit or training example does not exist.
    NOT_FOUND = 4


def exit_code_of(error: WherefromError) -> ExitCode:
    """The exit code that an error ends the program with."""
    if isinstance(error, NotFound):
        return ExitCode.NOT_FOUND
    return ExitCode.UNAVAILABLE if isinstance(error, TransientError) else ExitCode.BAD_INPUT


def visible(text: str, *, keep: str = "") -> str:
    r"""The text with control, bidi and other invisible characters as `\x1b` or `\u202e`, but those in `keep`."""
    return "".join(one if one in keep or not _is_hidden(one) else _escaped(one) for one in text)


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and character not in _JOINERS


def _escaped(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character, f"\\x{number:02x}")
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def one_line(text: str, *, length: int) -> Text:
    """At most `length` characters of a text, on one line, for a cell of a table."""
    flat = visible(" ".join(text[: 2 * length].splitlines()))
    return Text(flat if len(flat) <= length else flat[: length - 1] + "…")


def many_lines(text: str) -> Text:
    """A whole text with its own line breaks."""
    return Text(visible(text.replace("\r\n", "\n"), keep="\n"))


def out() -> Console:
    """Where results go."""
    console = Console(highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, markup=False, emoji=False, width=FILE_WIDTH)
    )


def err() -> Console:
    """Where errors, hints and progress go; long lines are not broken."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(values: Iterable[BaseModel | dict[str, Any]]) -> None:
    """One JSON object per line, ASCII only, so that a terminal obeys none of it."""
    for value in values:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        typer.echo(json.dumps(plain))


def print_table(
    columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Text | str]], *, empty: str
) -> None:
    """A table, or the sentence `empty` where there are no rows.

    Args:
        columns: Heading and justification (`left` or `right`) of each column.
        rows: Cells; plain strings are made visible here.
        empty: What to say on stderr when there is nothing to show.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns:
        numeric = justify == "right"
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for row in rows:
        table.add_row(*[one if isinstance(one, Text) else Text(visible(one)) for one in row])
    if table.row_count:
        out().print(table)
    else:
        err().print(empty)


def print_error(error: WherefromError) -> None:
    """One red line on stderr (more where the text has more) that begins with the error's code."""
    err().print(Text(f"error[{error.code}]: {visible(str(error), keep=chr(10))}", style="red"))


def progress() -> Progress:
    """A progress bar on stderr; nothing is shown where stderr is no terminal."""
    console = err()
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def number(value: float | None, *, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
