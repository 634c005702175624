"""Where a model computes and in which numbers: one device or, where one GPU is too small, several; float32 or bfloat16.

Only the pass through the model is made in `dtype`. What is read off it (hidden states, error signals, losses) is float32 from there on, and second moments, whitening,
eigenvectors and scores are float32 or float64 whatever the model's numbers are. Tensors are made where their inputs lie; what is stored or searched comes back to the CPU.
"""

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch

from wherefrom.errors import ConfigurationError

AUTO = "auto"
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d*))?")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: Share of a GPU's free memory that weights may take; the rest is for the pass.
_WEIGHT_SHARE = 0.8


@dataclass(frozen=True)
class Placement:
    """A device and the numbers of the pass through the model."""

    device: torch.device
    dtype: torch.dtype
    #: Whether the choice of the GPU was left open: several processes take them in turn, and a model that does not fit on one is spread over all.
    any_gpu: bool = False

    def __str__(self) -> str:
        """As people read it: ``cuda:0, bfloat16``."""
        return f"{self.device}, {self.dtype_name}"

    @property
    def dtype_name(self) -> str:
        """``float32`` or ``bfloat16``."""
        return str(self.dtype).removeprefix("torch.")

    @classmethod
    def resolve(cls, device: str = AUTO, dtype: str = AUTO, *, training: bool = False) -> "Placement":
        """What is asked for on this machine.

        Args:
            device: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:N``.
            dtype: ``auto`` (bfloat16 on a GPU that has it, else float32), ``float32`` or ``bfloat16``.
            training: whether models are trained; ``auto`` is then float32 everywhere, since rounding is as large as the effects that are measured.

        Raises:
            ConfigurationError: unknown words, no GPU, a number that no GPU has, or numbers that it does not compute with.
        """
        place = _device(device)
        is_open = place.type == "cuda" and ":" not in device
        return cls(place, _dtype(dtype, place, training=training), any_gpu=is_open)

    def for_process(self, number: int, processes: int) -> "Placement":
        """The same for one of several processes of this machine, counted from 0: they take the GPUs in turn, and none takes several."""
        if not self.any_gpu or processes == 1:
            return self
        device = torch.device("cuda", number % torch.cuda.device_count())
        return replace(self, device=device, any_gpu=False)

    def put(self, model: Any) -> Any:
        """Bring a frozen float32 model here; buffers (the angles of positions) stay float32.

        Raises:
            ConfigurationError: the model is too large for all GPUs together, or accelerate is missing where it must be spread.
            torch.OutOfMemoryError: it does not fit.
        """
        if self.dtype is not torch.float32:
            for weight in model.parameters():
                weight.data = weight.data.to(self.dtype)
        if self.device.type != "cuda":
            return model.to(self.device)
        needed = sum(one.numel() * one.element_size() for one in (*model.parameters(), *model.buffers()))
        if not self.any_gpu or torch.cuda.device_count() < 2 or needed <= _room(self.device):
            return model.to(self.device)
        return spread(model, {index: _room(index) for index in range(torch.cuda.device_count())})


#: What everything was before there were devices, and the default of every function that takes a placement.
CPU = Placement(torch.device("cpu"), torch.float32)


def spread(model: Any, room: dict[int | str, int]) -> Any:
    """Lay the blocks of a model over several devices, in their order.

    Args:
        model: on the CPU.
        room: bytes of weights that each device takes, in the order in which they are filled.

    Raises:
        ConfigurationError: accelerate is missing, or they are too small together.
    """
    if find_spec("accelerate") is None:
        raise ConfigurationError(
            "the model does not fit on one GPU, and spreading it over several needs accelerate: pip install accelerate"
        )
    from accelerate import dispatch_model, infer_auto_device_map  # noqa: PLC0415 - slow to import, seldom needed

    # without an entry for the CPU, accelerate would put there what fits nowhere else
    layout = infer_auto_device_map(
        model,
        max_memory=room | {"cpu": 0},
        no_split_module_classes=list(model._no_split_modules or ()),  # noqa: SLF001 - accelerate asks for it by this name
    )
    if outside := sorted(name for name, place in layout.items() if place not in room):
        raise ConfigurationError(
            f"the model does not fit on the {len(room)} GPUs together ({sum(room.values()) / 1e9:.0f} GB for weights): "
            f"{outside[0]} and {len(outside) - 1} other parts have no place; use --dtype bfloat16 or --device cpu"
        )
    return dispatch_model(model, device_map=layout)


def device_name(device: torch.device) -> str | None:
    """What a GPU calls itself; None for the CPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def is_spread(model: Any) -> bool:
    """Whether the parts of a model lie on several devices."""
    return len({one.device for one in model.parameters()}) > 1


def _room(device: "torch.device | int") -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(_WEIGHT_SHARE * free)


def _device(asked: str) -> torch.device:
    if not _DEVICE.fullmatch(asked):
        raise ConfigurationError(f"device {asked!r}: use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked == "cpu" or (asked == AUTO and not count):
        return torch.device("cpu")
    if not count:
        built = "" if torch.version.cuda else f"; torch {torch.__version__} is built without CUDA"
        raise ConfigurationError(f"device {asked}: this machine has no GPU that torch can use{built}")
    number = int(asked.partition(":")[2] or 0)
    if number >= count:
        known = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ConfigurationError(f"device {asked}: this machine has {known}")
    return torch.device("cuda", number)


def _dtype(asked: str, device: torch.device, *, training: bool) -> torch.dtype:
    if asked != AUTO and asked not in _DTYPES:
        raise ConfigurationError(f"dtype {asked!r}: use auto, float32 or bfloat16")
    has_bfloat16 = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if asked == AUTO:
        on_gpu = device.type == "cuda" and has_bfloat16 and not training
        return torch.bfloat16 if on_gpu else torch.float32
    if asked == "bfloat16" and not has_bfloat16:
        raise ConfigurationError(f"dtype bfloat16: {device} does not compute with it; use float32")
    return _DTYPES[asked]
