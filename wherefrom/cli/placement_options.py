"""Options that say where a model computes, for every command that loads one."""

from typing import TYPE_CHECKING, Annotated

import typer

from wherefrom.settings import load_settings

if TYPE_CHECKING:
    from wherefrom.attribution.models.placement import Placement

DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="DEVICE",
        help="auto (a GPU if there is one), cpu, cuda or cuda:N; default: WHEREFROM_DEVICE, else auto.",
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Numbers of the pass through the model: auto (bfloat16 on a GPU, else float32), float32 or bfloat16; default: WHEREFROM_DTYPE, else auto.",
    ),
]

TrainedDtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="auto (float32), float32 or bfloat16. bfloat16 needs a recipe with an adapter and holds for the base model. Default: WHEREFROM_DTYPE, else auto.",
    ),
]


def placement_of(device: str | None, dtype: str | None, *, training: bool = False) -> "Placement":
    """What these options ask for; the settings count where an option is not given.

    Raises:
        ConfigurationError: it is not on this machine.
    """
    from wherefrom.attribution.models.placement import Placement  # noqa: PLC0415 - imports torch

    settings = load_settings()
    return Placement.resolve(device or settings.device, dtype or settings.dtype, training=training)
