"""Reads parts of a corpus with the model that a build was planned with. Imports torch, so only a process that reads imports it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from wherefrom.attribution.bundles.entries import compute_entry
from wherefrom.attribution.bundles.parts import compute_part, read_part_rows
from wherefrom.attribution.bundles.plan import BuildPlan, open_reader
from wherefrom.attribution.interface import KeepGoing, PartFiles
from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.errors import BuildMismatch
from wherefrom.settings import Settings


class ModelPartReader:
    """Satisfies `PartReader`."""

    def __init__(self, reader: ReadsSignals, placement: Placement) -> None:
        self._reader = reader
        self._read_on = compute_entry(placement).model_dump(mode="json")

    def read_part(self, rows: Path, *, first: int, folder: Path, keep_going: KeepGoing) -> PartFiles:
        """See `PartReader.read_part`."""
        part = read_part_rows(rows)
        made = compute_part(part, self._reader, first=first, folder=folder, keep_going=keep_going)
        return replace(made, read_on=self._read_on)


def open_planned(
    plan: Mapping[str, Any], settings: Settings, place: Callable[[str], Placement]
) -> ModelPartReader:
    """What reads the parts of a planned build; see `BuildingEngine.open_part_reader`.

    Args:
        plan: as the build stored it.
        settings: where models are, and torch's threads.
        place: gives the placement of this process, for the plan's numbers.
    """
    try:
        planned = BuildPlan.model_validate(plan)
    except ValidationError as error:
        raise BuildMismatch(
            "the build was planned by another release of wherefrom; run the same release on all machines"
        ) from error
    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    with memory_errors("the model of the build"):
        placement = place(planned.dtype)
        return ModelPartReader(open_reader(planned, settings.models_dir, placement), placement)
