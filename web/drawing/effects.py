"""What the page shows of measured effects: where each stands, and its interval beside its controls on one scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from wherefrom.records import GroupMeasurementRecord, MeasurementRecord, MeasurementState, Method

METHOD_MEANINGS = {
    Method.REFIT: "retrained without it",
    Method.ONE_STEP: "one step on it from the final weights; weak evidence",
    Method.UNLEARN: "one step away from it from the final weights; weak evidence",
}


Record = TypeVar("Record", MeasurementRecord, GroupMeasurementRecord)


@dataclass(frozen=True)
class EffectView(Generic[Record]):
    """One measurement, ready for the page. Positions are percent of the width of its scale."""

    record: Record
    how: str
    zero: float
    effect: float
    low: float
    high: float
    controls: tuple[float, ...]


@dataclass(frozen=True)
class CitationEffects:
    """The measurements of one citation."""

    views: tuple[EffectView[MeasurementRecord], ...]
    #: A retraining can be asked for: none is under way or done.
    askable: bool


def effects_by_rank(
    measurements: Sequence[MeasurementRecord], ranks: Sequence[int]
) -> dict[int, CitationEffects]:
    """The measurements of an audit by the rank of their citation; every rank has an entry."""
    mine: dict[int, list[MeasurementRecord]] = {rank: [] for rank in ranks}
    for one in measurements:
        mine.setdefault(one.rank, []).append(one)
    return {
        rank: CitationEffects(
            views=tuple(_view(one, METHOD_MEANINGS[one.method]) for one in found),
            askable=not any(
                one.method is Method.REFIT and one.state is not MeasurementState.DEAD for one in found
            ),
        )
        for rank, found in mine.items()
    }


def group_view(record: GroupMeasurementRecord) -> EffectView[GroupMeasurementRecord]:
    """The measurement of a group."""
    return _view(record, "retrained without them")


def _view(record: Record, how: str) -> EffectView[Record]:
    effect = record.effect_nats or 0.0
    low = effect if record.low_nats is None else record.low_nats
    high = effect if record.high_nats is None else record.high_nats
    controls = [one.effect_nats for one in record.controls]
    least, most = min(0.0, low, effect, *controls), max(0.0, high, effect, *controls)
    width = (most - least) or 1.0

    def place(value: float) -> float:
        return 4 + 92 * (value - least) / width

    return EffectView(
        record=record,
        how=how,
        zero=place(0.0),
        effect=place(effect),
        low=place(low),
        high=place(high),
        controls=tuple(map(place, controls)),
    )
