"""What readers see of every measurement, be it of a citation or of a group: where it stands, and what it found."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import SQLColumnExpression

from db.models import GroupMeasurement, Measurement


def effect_columns(model: type[Measurement] | type[GroupMeasurement]) -> tuple[SQLColumnExpression[Any], ...]:
    """The columns of either table, under the names of the records."""
    return (
        model.id.label("measurement_id"),
        model.state,
        model.code,
        model.reason,
        model.attempt,
        model.effect_nats,
        model.low_nats,
        model.high_nats,
        model.z,
        model.seeds,
        model.controls,
        model.controls_mean_nats,
        model.left_out.label("group"),
        model.cost_seconds,
        model.last_code,
        model.last_reason,
        model.requested_by,
        model.created_at,
        model.finished_at,
    )


def effect_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with these columns as fields of a record: a list that is not there is empty."""
    return dict(row) | {name: row[name] or () for name in ("controls", "group")}
