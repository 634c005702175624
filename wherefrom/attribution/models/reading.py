"""Which reader belongs to a bundle's form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from wherefrom.attribution.models.adapted import AdapterReader, ForwardAdapterReader
from wherefrom.attribution.models.adjoint import Adjoint
from wherefrom.attribution.models.final_gradients import TwoPointReader
from wherefrom.attribution.models.lora import read_lora
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.signals import Similarity
from wherefrom.attribution.models.trajectory import ReadsSignals, TrajectoryReader
from wherefrom.errors import ConfigurationError

#: How a bundle's signals are read: from the residual stream (`models.signals`), or in the directions of an adapter (`models.adapted`), with a backward pass or with forward passes alone.
BundleForm = Literal["forward", "activation", "adapter", "adapter-forward"]


def reads_adapter(form: BundleForm) -> bool:
    """Whether a form reads the directions of an adapter, and keeps cores."""
    return form in ("adapter", "adapter-forward")


@dataclass(frozen=True)
class AdapterReading:
    """How the forms that read an adapter read it."""

    #: Folder of the adapter that is merged into the audited model.
    folder: Path | None
    #: Which states are pooled for similarity.
    similarity: Similarity = "hidden"
    #: The learned map of the form `adapter-forward`; without it, exact error signals are read and what they are predicted from.
    adjoint: Adjoint | None = None
    #: See `AdapterReader`.
    first_block: int | None = None
    #: Whether the form `adapter` also reads gradients at the final weights (`final_gradients`), and of how many tokens of prompts; None for all.
    final: bool = False
    prompt_tokens: int | None = None


def make_reader(
    points: Sequence[LanguageModel],
    *,
    form: BundleForm,
    layers: Sequence[int],
    similarity_layer: int,
    adapter: AdapterReading,
) -> ReadsSignals:
    """The reader of a form.

    Args:
        points: the points of the fine-tune, the audited model first; the forms that read an adapter make their own point from that one.
        form: the bundle's form.
        layers: hidden states that are read; none for the forms that read an adapter.
        similarity_layer: hidden state for similarity.
        adapter: how the adapter is read; the other forms do not look at it.

    Raises:
        ConfigurationError: a form that reads an adapter, without an adapter.
        UnusableModel: the adapter is not LoRA on linear layers.
    """
    if not reads_adapter(form):
        return TrajectoryReader(
            points,
            form="forward" if form == "forward" else "activation",
            layers=layers,
            similarity_layer=similarity_layer,
        )
    if adapter.folder is None:
        raise ConfigurationError(
            f"the form `{form}` reads the directions of an adapter: give the adapter (--adapter), or choose --form activation or forward"
        )
    adapted = read_lora(points[0].model, adapter.folder)
    kind: Callable[..., AdapterReader] = partial(AdapterReader, context=form == "adapter-forward")
    if adapter.adjoint is not None:
        kind = partial(ForwardAdapterReader, adjoint=adapter.adjoint)
    elif adapter.final:
        kind = partial(TwoPointReader, prompt_tokens=adapter.prompt_tokens)
    return kind(
        points[0],
        adapted,
        similarity_layer=similarity_layer,
        similarity=adapter.similarity,
        first_block=adapter.first_block,
    )


def ranks_of(reader: ReadsSignals) -> tuple[int, ...] | None:
    """Directions of each layer where they may differ (see `whitening`); None where all layers have the signals' width."""
    return reader.ranks if isinstance(reader, AdapterReader) else None
