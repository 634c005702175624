"""What both command lines (`wherefrom` and `python -m worker`) write to a terminal: sentences and tables.

Everything passes `visible`: names, reasons and texts come from strangers and may hold escape sequences, turned directions or
line breaks. They are evidence to be seen, not obeyed. rich is imported when something is printed with it: five processes start
at once, and few of them print a table.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

#: Width of tables that do not go to a terminal.
FILE_WIDTH = 160
#: Joiners of scripts and emoji; alone among the format characters they move nothing on the screen.
_JOINERS = "\u200c\u200d"


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


def say(text: str, *, to_stderr: bool = False, keep: str = "") -> None:
    """One line for people; a line break in it is written out, unless `keep` holds it."""
    typer.echo(visible(text, keep=keep), err=to_stderr)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """The number with its noun: `1 query`, `1,024 tokens`; `plural` if it is not the noun with an `s`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def out() -> "Console":
    """Where results go."""
    from rich.console import Console  # noqa: PLC0415 - few commands print with it

    console = Console(highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(highlight=False, markup=False, emoji=False, width=FILE_WIDTH)
    )


def err() -> "Console":
    """Where errors, hints and progress go; long lines are not broken."""
    from rich.console import Console  # noqa: PLC0415 - few commands print with it

    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_table(
    columns: Sequence[tuple[str, str]], rows: Iterable[Sequence["Text | str"]], *, empty: str
) -> None:
    """A table, or the sentence `empty` where there are no rows.

    Args:
        columns: Heading and justification (`left` or `right`) of each column.
        rows: Cells; plain strings are made visible here.
        empty: What to say on stderr when there is nothing to show.
    """
    from rich.table import Table  # noqa: PLC0415 - few commands print with it
    from rich.text import Text  # noqa: PLC0415 - a tenth of a second that most commands do not need

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
