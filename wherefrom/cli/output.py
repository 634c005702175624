"""How the command line speaks: exit codes, cells of tables, JSON lines, errors, progress; `wherefrom.terminal` prints."""

import json
from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import typer
from pydantic import BaseModel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from wherefrom.errors import NotFound, TransientError, WherefromError
from wherefrom.records import SIGN_NOT_DETERMINED
from wherefrom.settings import masked
from wherefrom.terminal import err, say, visible


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


def one_line(text: str, *, length: int) -> Text:
    """At most `length` characters of a text, on one line, for a cell of a table."""
    flat = visible(" ".join(text[: 2 * length].splitlines()))
    return Text(flat if len(flat) <= length else flat[: length - 1] + "…")


def many_lines(text: str) -> Text:
    """A whole text with its own line breaks."""
    return Text(visible(text.replace("\r\n", "\n"), keep="\n"))


def print_json(values: Iterable[BaseModel | dict[str, Any]]) -> None:
    """One JSON object per line, ASCII only, so that a terminal obeys none of it."""
    for value in values:
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        typer.echo(json.dumps(plain))


def print_error(error: WherefromError) -> None:
    """One red line on stderr (more where the text has more) that begins with the error's code."""
    err().print(Text(f"error[{error.code}]: {visible(masked(str(error)), keep=chr(10))}", style="red"))


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


def influence(value: float | None, *, determined: bool | None) -> str:
    """An influence score for a table; one that is no more than noise stands behind a plus-minus sign (see `note_signs`)."""
    return f"\N{PLUS-MINUS SIGN}{abs(value or 0.0):.3f}" if determined is False else number(value)


def note_signs(determined: Iterable[bool | None]) -> None:
    """Under a table: what the plus-minus sign means, where it stands."""
    if any(one is False for one in determined):
        say(f"\N{PLUS-MINUS SIGN}: {SIGN_NOT_DETERMINED}; unrelated training examples have as much influence")


def number(value: float | None, *, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
