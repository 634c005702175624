"""Options that say how a training corpus is read and rendered, for every command that does."""

from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.corpus.dialects import DIALECTS
from wherefrom.attribution.corpus.rows import Turns
from wherefrom.attribution.models.rule import RenderingRule, parse_template_args, read_template

TurnsOption = Annotated[
    Turns,
    typer.Option(
        "--turns",
        help="Assistant turns to explain: all trained turns, or the last turn of each row.",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help=f"Format of every row ({', '.join(one.name for one in DIALECTS)}); default: detected row by row.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split", metavar="NAME", help="Split of a corpus folder; default: train, if the folder has several."
    ),
]
TemplateOption = Annotated[
    Path | None,
    typer.Option("--chat-template", help="Chat template (Jinja file) that replaces the model's own."),
]
TemplateArgsOption = Annotated[
    str | None,
    typer.Option(
        "--template-args",
        metavar="JSON",
        help="Variables for the chat template, such as '{\"enable_thinking\": false}'.",
    ),
]
JoinOption = Annotated[
    str,
    typer.Option(help="Text between prompt and completion, for a model without a chat template."),
]


def rendering_rule(chat_template: Path | None, template_args: str | None, *, join: str) -> RenderingRule:
    """What these options ask for.

    Raises:
        ConfigurationError: the file cannot be read, or the variables are no JSON object.
    """
    return RenderingRule(
        chat_template=read_template(chat_template),
        template_args=parse_template_args(template_args),
        join=join,
    )
