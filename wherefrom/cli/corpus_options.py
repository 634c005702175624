"""Options that say how a training corpus is read, for every command that reads one."""

from typing import Annotated

import typer

from wherefrom.attribution.corpus.dialects import DIALECTS
from wherefrom.attribution.corpus.rows import Turns

TurnsOption = Annotated[
    Turns,
    typer.Option(
        "--turns",
        help="Assistant turns to explain: all that training trained on, or the last one of each row.",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"Format that every row must have ({', '.join(one.name for one in DIALECTS)}); default: recognised row by row.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="NAME", help="Split of a corpus folder; default: train, where there are several."
    ),
]
