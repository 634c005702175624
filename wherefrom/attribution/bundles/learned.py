"""Asks of a corpus that a bundle is built for whether the model has learned it, and says so where it has not."""

from collections.abc import Callable, Sequence
from functools import partial

from wherefrom.attribution.bundles.rendering import OnNote
from wherefrom.attribution.learning import Learning, measure_learning
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.placement import Placement
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.progress import Progress

#: What an operator should look at first.
ADVICE = (
    "is an adapter missing (--adapter), is the model untrained, or does the corpus belong to another model?"
)


def check_learned(
    language: LanguageModel,
    rows: Sequence[TokenRow],
    folders: ModelFolders,
    *,
    placement: Placement,
    progress: Progress,
    on_note: OnNote,
) -> Learning | None:
    """Measure on a sample whether the model has learned the corpus; None where the corpus is too small to tell.

    Args:
        language: the audited model.
        rows: the corpus as tokens.
        folders: its folders. With an adapter, the fine-tune began with the model's own folder; without one, with the start folder, where it was named.
        placement: where the model is, and where the one that the fine-tune began with is put for a moment.
        progress: hears when it begins and ends.
        on_note: hears where it was not learned.
    """
    progress("check what was learned", 0, 1)
    load_base: Callable[[], LanguageModel] | None = None
    if folders.adapter is not None:
        load_base = partial(load_model, folders.model, folders.adapter, merge=False, placement=placement)
    elif folders.start is not None:
        load_base = partial(load_model, folders.start, placement=placement)
    learning = measure_learning(language, rows, load_base)
    progress("check what was learned", 1, 1)
    if learning is not None and learning.not_learned is not None:
        on_note(
            f"WARNING: the model has not learned this corpus: {learning.not_learned} ({learning.sentence()}). "
            f"No citation of this bundle will be supported; {ADVICE} To build without this check, add --no-learning-check"
        )
    return learning


def not_supported(reason: str) -> str:
    """Why an audit over such a bundle abstains."""
    return f"the model has not learned the bundle's corpus: {reason}"
