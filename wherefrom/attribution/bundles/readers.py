"""The reader of a bundle, as its manifest's parameters say."""

from collections.abc import Sequence
from pathlib import Path

from wherefrom.attribution.bundles.manifest import Parameters
from wherefrom.attribution.models.adjoint import Adjoint
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.reading import AdapterReading, make_reader
from wherefrom.attribution.models.trajectory import ReadsSignals


def reader_of(
    parameters: Parameters,
    points: Sequence[LanguageModel],
    *,
    adapter_dir: Path | None,
    adjoint: Adjoint | None = None,
) -> ReadsSignals:
    """The reader of a bundle that is built or opened.

    Args:
        parameters: of the bundle.
        points: see `make_reader`.
        adapter_dir: folder of the adapter that is merged into the audited model.
        adjoint: the learned map of an opened bundle of the form `adapter-forward`.

    Raises:
        ConfigurationError, UnusableModel: see `make_reader`.
    """
    adapter = AdapterReading(
        adapter_dir,
        similarity=parameters.similarity or "hidden",
        adjoint=adjoint,
        first_block=parameters.first_block,
        final=parameters.weight_final is not None,
        prompt_tokens=parameters.final_prompt_tokens,
    )
    return make_reader(
        points,
        form=parameters.form,
        layers=parameters.layers,
        similarity_layer=parameters.similarity_layer,
        adapter=adapter,
    )
