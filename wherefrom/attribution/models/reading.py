"""Which reader belongs to a bundle's form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wherefrom.attribution.models.adapted import AdapterReader, ForwardAdapterReader
from wherefrom.attribution.models.adjoint import Adjoint
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


def make_reader(
    points: Sequence[LanguageModel],
    *,
    form: BundleForm,
    layers: Sequence[int],
    similarity_layer: int,
    adapter_dir: Path | None,
    similarity: Similarity = "hidden",
    adjoint: Adjoint | None = None,
    first_block: int | None = None,
) -> ReadsSignals:
    """The reader of a form.

    Args:
        points: the points of the fine-tune, the audited model first; the forms that read an adapter make their own point from that one.
        form: the bundle's form.
        layers: hidden states that are read; none for the forms that read an adapter.
        similarity_layer: hidden state for similarity.
        adapter_dir: folder of the adapter that is merged into the audited model.
        similarity: which states are pooled for similarity; those of an adapter only in the forms that read it.
        adjoint: the learned map of the form `adapter-forward`; without it, exact error signals are read and what they are predicted from.

        first_block: see `AdapterReader`.

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
    if adapter_dir is None:
        raise ConfigurationError(
            f"the form `{form}` reads the directions of an adapter: give the adapter (--adapter), or choose --form activation or forward"
        )
    adapted = read_lora(points[0].model, adapter_dir)
    if adjoint is not None:
        return ForwardAdapterReader(
            points[0],
            adapted,
            similarity_layer=similarity_layer,
            adjoint=adjoint,
            similarity=similarity,
            first_block=first_block,
        )
    return AdapterReader(
        points[0],
        adapted,
        similarity_layer=similarity_layer,
        similarity=similarity,
        context=form == "adapter-forward",
        first_block=first_block,
    )


def ranks_of(reader: ReadsSignals) -> tuple[int, ...] | None:
    """Directions of each layer where they may differ (see `whitening`); None where all layers have the signals' width."""
    return reader.ranks if isinstance(reader, AdapterReader) else None
