"""Options that several commands of the service share."""

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, cast

import typer

from wherefrom.client.filters import AuditFilters
from wherefrom.records import FILTER_NAMES, filter_help, filter_type

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the service; default: WHEREFROM_SERVICE_URL. The API key comes from WHEREFROM_API_KEY.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line instead of a table.")
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="The file to write; an existing file is replaced.")
]
FdrOption = Annotated[
    float | None,
    typer.Option(
        "--fdr",
        metavar="LEVEL",
        help="Judge the whole listing at this false discovery rate, for example .1, and mark the supported audits.",
    ),
]
#: Options that are not called as the filter is.
_SPELT = {"flag_reason": "reason"}


def takes_filters(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one option per filter of the list of audits, in the place of its argument `filters`."""
    signature = inspect.signature(command)

    @wraps(command)
    def with_options(**given: object) -> None:
        filters = {name: given.pop(_SPELT.get(name, name)) for name in FILTER_NAMES}
        command(**given, filters=cast("AuditFilters", filters))

    parameters: list[Parameter] = []
    for one in signature.parameters.values():
        parameters += map(_filter_option, FILTER_NAMES) if one.name == "filters" else [one]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by `inspect.signature`
    return with_options


def _filter_option(name: str) -> Parameter:
    """The option of one filter; a time is text here, since only the service reads days."""
    spelt, kind = _SPELT.get(name, name), filter_type(name)
    option = typer.Option(f"--{spelt.replace('_', '-')}", help=filter_help(name))
    value = str if kind is datetime else kind
    return Parameter(spelt, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value | None, option])
