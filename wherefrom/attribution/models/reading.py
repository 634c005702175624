"""Which reader belongs to a bundle's form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.models.lora import read_lora
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.trajectory import ReadsSignals, TrajectoryReader
from wherefrom.errors import ConfigurationError

#: How a bundle's signals are read: from the residual stream (`models.signals`), or in the directions of an adapter (`models.adapted`).
BundleForm = Literal["forward", "activation", "adapter"]


def make_reader(
    points: Sequence[LanguageModel],
    *,
    form: BundleForm,
    layers: Sequence[int],
    similarity_layer: int,
    adapter_dir: Path | None,
) -> ReadsSignals:
    """The reader of a form.

    Args:
        points: the points of the fine-tune, the audited model first; the form `adapter` makes its own point from that one.
        form: the bundle's form.
        layers: hidden states that are read; none for the form `adapter`.
        similarity_layer: hidden state for similarity.
        adapter_dir: folder of the adapter that is merged into the audited model.

    Raises:
        ConfigurationError: the form `adapter` without an adapter.
        UnusableModel: the adapter is not LoRA on linear layers.
    """
    if form != "adapter":
        return TrajectoryReader(points, form=form, layers=layers, similarity_layer=similarity_layer)
    if adapter_dir is None:
        raise ConfigurationError(
            "the form `adapter` reads the directions of an adapter: give the adapter (--adapter), or choose --form activation or forward"
        )
    return AdapterReader(
        points[0], read_lora(points[0].model, adapter_dir), similarity_layer=similarity_layer
    )


def ranks_of(reader: ReadsSignals) -> tuple[int, ...] | None:
    """Directions of each layer where they may differ (see `whitening`); None where all layers have the signals' width."""
    return reader.ranks if isinstance(reader, AdapterReader) else None
