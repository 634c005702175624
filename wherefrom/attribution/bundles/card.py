"""The card of a new bundle: what building it cost and what it covers. Quality is not known then; `wherefrom evaluate` measures it and writes it in."""

from collections.abc import Mapping
from typing import Any

import torch

from wherefrom.attribution.bundles.manifest import CorpusEntry, Parameters, ProjectionEntry, ReadingEntry
from wherefrom.attribution.learning import Learning
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.reading import reads_adapter


def new_card(
    language: LanguageModel,
    parameters: Parameters,
    corpus: CorpusEntry,
    *,
    projection: ProjectionEntry,
    mean_loss: float,
    seconds: Mapping[str, float],
    bundle_bytes: int,
    split_pass: bool,
) -> dict[str, Any]:
    """The content of `card.json` of a bundle that was just built.

    Args:
        language: the audited model.
        parameters: those of the bundle.
        corpus: what the manifest says of the corpus.
        projection: size of the learned projection.
        mean_loss: mean over rows of the mean loss per completion token, nats.
        seconds: of each stage, as far as this run had to do it.
        bundle_bytes: bytes of all files.
        split_pass: whether prompts were run without a graph (see `models.signals`).
    """
    return {
        "quality": None,
        "quality_reason": "not measured for this bundle",
        "mean_loss_nats": mean_loss,
        "calibration": {"calibrated": "no"},
        "cost": {
            "seconds": dict(seconds),
            "bundle_bytes": bundle_bytes,
            "bytes_per_example": bundle_bytes / corpus.examples,
            "projection_bytes": projection.bytes,
            "projection_share_of_model": projection.share_of_model,
            "bundle_share_of_model": bundle_bytes / language.fingerprint.weight_bytes,
            "split_pass": split_pass,
            "threads": torch.get_num_threads(),
        },
        "coverage": {
            "tokens_explained_share": corpus.completion_tokens / corpus.tokens,
            "hidden_states_read": list(parameters.layers),
            "hidden_states": language.layers + 1,
            "points_of_the_fine_tune": 2 if parameters.midpoint else 1,
            "weights": _weights_covered(parameters),
        }
        | ({} if parameters.instead is None else {"form": parameters.instead}),
    }


def features_on_card(parameters: Parameters, seconds_of_candidates: float | None) -> dict[str, Any]:
    """What the card says of the features that a bundle does not keep whole.

    Args:
        parameters: those of the bundle.
        seconds_of_candidates: of reading the candidates of one audit; None where the bundle keeps their features.
    """
    if parameters.features is None:
        return {}
    if parameters.features == "compact":
        return {"features": "compact: scores are estimates of the exact ones"}
    return {
        "features": "none: every audit reads its candidates through the model again",
        "seconds_of_candidates": seconds_of_candidates,
    }


def _weights_covered(parameters: Parameters) -> str:
    if reads_adapter(parameters.form):
        predicted = (
            "; error signals of outputs are predicted, without a backward pass"
            if parameters.form == "adapter-forward"
            else ""
        )
        where = "every layer that it adapts"
        if parameters.first_block is not None:
            where = f"every layer that it adapts from block {parameters.first_block} on (the lowest is 0)"
        return f"the directions of the adapter in {where}, read with the adapter at half strength{predicted}"
    if parameters.full_tier:
        return "all linear layers of the blocks (full tier) for important audits; the kernel acts on the residual stream"
    return "none directly: the kernel acts on the residual stream, not on weight gradients"


def learning_on_card(learning: Learning | None) -> dict[str, Any]:
    """What the card says of how the model learned the corpus."""
    if learning is None:
        return {"learned": "not checked"}
    learned = "yes" if learning.not_learned is None else f"NO: {learning.not_learned}"
    return {"learned": learned} | learning.model_dump(exclude={"not_learned"}, exclude_none=True)


def reading_coverage(reading: ReadingEntry) -> dict[str, Any]:
    """What the card says of how the corpus was read."""
    return {
        "assistant_turns": reading.turns,
        "assistant_turns_explained": reading.explained_turns,
        "assistant_turns_left_out": sum(reading.left_out.values()),
        "rows_without_a_trained_turn": reading.untrained_rows,
        "formats": ", ".join(f"{count} {title}" for title, count in reading.formats.items()),
    }
