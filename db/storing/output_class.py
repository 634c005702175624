"""Classes of flagged outputs as SQL."""

from sqlalchemy import ColumnElement

from db.models import FlaggedOutput
from wherefrom.records import OutputClass

#: Columns by what a class calls them.
_COLUMNS = {
    "producer": "producer",
    "flag_reason": "reason",
    "severity": "severity",
    "model": "model",
    "channel": "channel",
    "key": "idempotency_key",
}


def in_class(outputs: OutputClass, output: type[FlaggedOutput] = FlaggedOutput) -> list[ColumnElement[bool]]:
    """What must hold of an output that is in a class.

    Args:
        outputs: The class.
        output: The table, or another name of it.
    """
    found: list[ColumnElement[bool]] = [
        getattr(output, column) == value
        for name, column in _COLUMNS.items()
        if (value := getattr(outputs, name)) is not None
    ]
    if outputs.since is not None:
        found.append(output.received_at >= outputs.since)
    if outputs.until is not None:
        found.append(output.received_at <= outputs.until)
    if outputs.label is not None:
        name, _, value = outputs.label.partition("=")
        found.append(output.labels[name].as_string() == value)
    return found
