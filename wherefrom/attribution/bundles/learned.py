"""Asks of a corpus that a bundle is built for whether the model has learned it, and says so where it has not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from wherefrom.attribution.bundles.rendering import Tell
from wherefrom.attribution.learning import Learning, measure_learning
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow

#: What an operator should look at first.
ADVICE = (
    "was an adapter forgotten (--adapter), is the model an untrained one, or is it the corpus of another model?"
)


def check_learned(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    *,
    model_dir: Path,
    adapter_dir: Path | None,
    start_dir: Path | None,
    tell: Tell,
) -> Learning | None:
    """Measure on a sample whether the model has learned the corpus; None where the corpus is too small to tell.

    Args:
        language: the audited model.
        rows: the corpus as tokens.
        model_dir: its folder.
        adapter_dir: its adapter, so that `model_dir` is what the fine-tune began with.
        start_dir: what a full fine-tune began with, where it was named.
        tell: hears where it was not learned.
    """
    load_base: Callable[[], LanguageModel] | None = None
    if adapter_dir is not None:
        load_base = lambda: load_model(model_dir, adapter_dir, merge=False)  # noqa: E731 - two ways to one thing
    elif start_dir is not None:
        load_base = lambda: load_model(start_dir)  # noqa: E731 - as above
    learning = measure_learning(language, rows, load_base)
    if learning is not None and learning.not_learned is not None:
        tell(
            f"WARNING: the model has not learned this corpus: {learning.not_learned} ({learning.sentence()}). "
            f"No citation of this bundle will be supported; {ADVICE} If you know better, build with --no-learning-check"
        )
    return learning


def not_supported(reason: str) -> str:
    """Why an audit over such a bundle abstains."""
    return f"the model has not learned the bundle's corpus: {reason}"
