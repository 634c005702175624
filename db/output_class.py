"""Classes of flagged outputs as SQL."""

from sqlalchemy import ColumnElement, SQLColumnExpression

from db.models import FlaggedOutput
from wherefrom.records import OutputClass

_COLUMNS: dict[str, SQLColumnExpression[object]] = {
    "producer": FlaggedOutput.producer,
    "flag_reason": FlaggedOutput.reason,
    "severity": FlaggedOutput.severity,
    "model": FlaggedOutput.model,
    "channel": FlaggedOutput.channel,
    "key": FlaggedOutput.idempotency_key,
}


def in_class(outputs: OutputClass) -> list[ColumnElement[bool]]:
    """What must hold of an output that is in a class."""
    found = [
        column == value
        for name, column in _COLUMNS.items()
        if (value := getattr(outputs, name)) is not None
    ]  # fmt: skip
    if outputs.since is not None:
        found.append(FlaggedOutput.received_at >= outputs.since)
    if outputs.until is not None:
        found.append(FlaggedOutput.received_at <= outputs.until)
    if outputs.label is not None:
        name, _, value = outputs.label.partition("=")
        found.append(FlaggedOutput.labels[name].as_string() == value)
    return found
