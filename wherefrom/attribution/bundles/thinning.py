"""Takes what an audit can do without out of the features of a bundle, after everything that is fitted on them is written."""

from pathlib import Path

from wherefrom.attribution.bundles.features import FEATURES, PROJECTION
from wherefrom.attribution.bundles.manifest import Parameters
from wherefrom.attribution.cores import compact_cores
from wherefrom.attribution.factors import compact_factors
from wherefrom.attribution.gradient_sketch import compact_final
from wherefrom.attribution.models.reading import reads_adapter
from wherefrom.attribution.retrieval.core_projection import CoreProjection

#: Features of the training examples, one entry a token, a layer or a row; lengths, norms and vectors stay, since candidates are found and scaled by them.
SCORED_WITH = (
    "a",
    "a_scale",
    "b",
    "b_scale",
    "cores",
    "core_scales",
    "sketches",
    "sketch_scales",
    "final",
    "final_scales",
)


def thin(folder: Path, parameters: Parameters, *, fitted: Path | None = None) -> None:
    """Bring exact features to what their bundle keeps.

    Args:
        folder: the bundle, or a folder like one with rows that are added to it.
        parameters: of the bundle.
        fitted: the bundle whose projection it is, where that is another.
    """
    features, kept = folder / FEATURES, parameters.features
    if kept == "none":
        for name in SCORED_WITH:
            (features / f"{name}.npy").unlink(missing_ok=True)
    elif kept == "compact" and reads_adapter(parameters.form):
        compact_cores(features, CoreProjection.load((fitted or folder) / PROJECTION))
        if (features / "final.npy").is_file():
            compact_final(features)
    elif kept == "compact":
        compact_factors(features)
