"""Which device each pool process of this machine computes on; the process leaves a file about it, and doctor reads the files.

The pool numbers its processes from 0 and gives a dead one's number to the next, so `auto` and `cuda` spread them evenly over the GPUs. The measurer is numbered
behind the workers: it takes the next GPU, where there is one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from billiard.process import current_process

from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from worker.vitals.liveness import LivenessFile

if TYPE_CHECKING:
    from wherefrom.attribution.models.placement import Placement

log = get_logger(__name__)

WORKER, MEASURER, BUILDER = "worker", "measurer", "builder"
_FILES = "device-{}-{}"


@dataclass(frozen=True)
class PlacedProcess:
    """A process that has a device."""

    #: Such as ``worker process 0``.
    name: str
    #: Such as ``cuda:0 (NVIDIA H100), bfloat16``.
    text: str


def pool_number() -> int:
    """Number of this process in its pool; 0 outside of one."""
    return getattr(current_process(), "index", 0) or 0


def place_process(settings: Settings, kind: str, *, dtype: str | None = None) -> "Placement":
    """Device and numbers of this process; also told to the log and to doctor.

    Args:
        settings: what was asked for.
        kind: `WORKER`, `MEASURER` or `BUILDER`.
        dtype: numbers of the pass where a plan says them; None for those of the settings.

    Raises:
        ConfigurationError: this machine does not have it.
    """
    from wherefrom.attribution.models.placement import Placement, device_name  # noqa: PLC0415 - imports torch

    asked = Placement.resolve(settings.device, dtype or settings.dtype, training=kind == MEASURER)
    number, processes = pool_number(), settings.worker_processes
    if kind == MEASURER:
        number, processes = processes + number, processes + 1
    found = asked.for_process(number, processes)
    name = device_name(found.device) or ""
    log.info(
        "process_placed", kind=kind, number=pool_number(), device=str(found.device), dtype=found.dtype_name
    )
    LivenessFile(settings, _FILES.format(kind, pool_number())).beat(
        device=str(found.device), gpu=name, dtype=found.dtype_name
    )
    return found


def placed_processes(settings: Settings) -> Iterator[PlacedProcess]:
    """The processes of this machine that have a device and are alive."""
    for kind, processes in (
        (WORKER, settings.worker_processes),
        (MEASURER, 1),
        (BUILDER, settings.worker_processes),
    ):
        for number in range(processes):
            sign = LivenessFile(settings, _FILES.format(kind, number))
            if sign.is_of_a_living():
                said = sign.details()
                gpu = f" ({said['gpu']})" if said.get("gpu") else ""
                yield PlacedProcess(
                    f"{kind} process {number}", f"{said.get('device')}{gpu}, {said.get('dtype')}"
                )
