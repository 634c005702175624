"""What a user may choose when a bundle is built, and what follows for its parameters."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from wherefrom.attribution.bundles.indexes import IndexWishes
from wherefrom.attribution.bundles.manifest import Parameters
from wherefrom.attribution.corpus.rows import Corpus, ReadAs
from wherefrom.attribution.fusion import FusionWeights, default_weights
from wherefrom.attribution.models.final_gradients import PROMPT_TOKENS
from wherefrom.attribution.models.lora import adapted_names, first_block_read, other_kind
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.reading import BundleForm, reads_adapter
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.attribution.models.signals import Similarity
from wherefrom.attribution.retrieval.candidates import default_candidates
from wherefrom.attribution.whitening import ADAPTER_DAMPING, DAMPING
from wherefrom.errors import ConfigurationError

#: Models up to this many blocks get the form `forward` when the form is `auto`.
SHALLOW_LAYERS = 8
_LAYERS_READ = 4
#: Training examples up to which a bundle keeps exact features, and compact ones, where nobody chose: about 5 GB and 40 GB of them.
EXACT_UP_TO, COMPACT_UP_TO = 100_000, 10_000_000
#: Which states similarity compares in the forms that read an adapter, where nobody chose.
ADAPTER_SIMILARITY: Similarity = "hidden"


@dataclass(frozen=True)
class BuildOptions:
    """What the user may choose."""

    form: Literal["auto"] | BundleForm = "auto"
    model_name: str | None = None
    max_tokens: int = 1024
    candidates: int | None = None
    #: Which blocks of a LoRA model the forms that read an adapter read: `auto` takes the upper half of a deep one.
    blocks: Literal["auto", "all"] = "auto"
    #: Whether the form `adapter` also reads gradients at the final weights, by a pass of its own (`models.final_gradients`).
    final: bool = True
    #: What is kept of each training example to score it with (`thinning`); `auto` goes by the size of the corpus.
    features: Literal["auto", "exact", "compact", "none"] = "auto"
    #: Also read the model half-way between the first and the final weights (see `models.trajectory`).
    midpoint: bool = False
    #: Also fit EK-FAC over all linear layers, for audits that are marked important.
    full_tier: bool = False
    skip_bad: bool = False
    #: Whether a sample shows that the model has learned the corpus (see `attribution.learning`).
    check_learning: bool = True
    #: How texts are rendered: a chat template in place of the model's own and variables for it, or what stands between prompt and completion without one.
    rendering: RenderingRule = field(default_factory=RenderingRule)
    #: How the corpus is read: which turns are explained, which format, which split.
    read: ReadAs = field(default_factory=ReadAs)
    #: Which states similarity compares; None for what the form takes by default.
    similarity: Similarity | None = None
    #: Folder of a sentence encoder for the order shown; the bundle gets a copy of it.
    encoder: Path | None = None
    #: Weights of the order shown; None for those of the form.
    weights: FusionWeights | None = None
    #: Weight of the encoder in it, where it is another.
    encoder_weight: float | None = None
    #: Where the model computes, and in which numbers.
    placement: Placement = CPU
    #: What makes the vector indexes.
    index: IndexWishes = field(default_factory=IndexWishes)


def rendering_of(language: LanguageModel, corpus: Corpus, asked: RenderingRule) -> RenderingRule | None:
    """What a corpus is rendered by beside the model's own chat template; None where that is all.

    Args:
        language: The model.
        corpus: Its rows say whether texts end as plain prompts and completions do.
        asked: What the user chose; `join` counts only where there is no chat template.
    """
    own = asked.model_copy(update={"join": "", "join_ends": False})
    if language.renderer.with_rule(own).has_template:
        return None if own == RenderingRule() else own
    ends = language.renderer.ends_text and any(row.plain_prompt for row in corpus.rows)
    return own.model_copy(update={"join": asked.join, "join_ends": ends})


def with_readable_form(
    language: LanguageModel, adapter_dir: Path | None, options: BuildOptions
) -> tuple[BuildOptions, str | None]:
    """The options with the form that fits the adapter, and why where it is another than the one that reads it.

    `auto` takes the form `adapter` for LoRA on linear layers. A half-way model or a full tier of the user's belongs to the other forms.

    Args:
        language: The model, adapter merged.
        adapter_dir: Folder of the adapter.
        options: What the user chose.
    """
    form: BundleForm = "adapter" if options.form == "auto" else options.form
    left_to_depth = options.form == "auto" and (options.midpoint or options.full_tier)
    if adapter_dir is None or left_to_depth or not reads_adapter(form):
        return options, None
    what = other_kind(language.model, adapter_dir)
    if what is None:
        return replace(options, form=form), None
    instead = form_by_depth(language)
    why = f"the form `{form}` reads LoRA on linear layers; of the adapter: {what}. The form is `{instead}` instead"
    return replace(options, form=instead, similarity=None), why


def form_by_depth(language: LanguageModel) -> BundleForm:
    """The form of a model whose adapter is not read: by its depth."""
    return "forward" if language.layers <= SHALLOW_LAYERS else "activation"


def parameters_of(
    language: LanguageModel,
    corpus: Corpus,
    options: BuildOptions,
    *,
    adapter_dir: Path | None,
    instead: str | None,
) -> Parameters:
    """The parameters of a bundle: what the user chose, and the defaults that fit the model and the corpus.

    Args:
        language: The model, adapter merged.
        corpus: The training examples.
        options: What the user chose.
        adapter_dir: Folder of the adapter.
        instead: Why the form is another than the one that was asked for; None where it is not.

    Raises:
        ConfigurationError: two choices do not go together.
    """
    form: BundleForm = options.form if options.form != "auto" else form_by_depth(language)
    if reads_adapter(form) and (options.midpoint or options.full_tier):
        raise ConfigurationError(
            f"the form `{form}` already reads the half-way point and has no full tier: remove --midpoint and --full-tier"
        )
    weights = _weights(form, options)
    return Parameters(
        form=form,
        instead=instead,
        layers=default_layers(form, language.layers),
        first_block=_first_block(form, adapter_dir, options),
        similarity_layer=round(0.75 * language.layers),
        similarity=_similarity(form, options.similarity),
        midpoint=options.midpoint,
        full_tier=options.full_tier,
        damping=ADAPTER_DAMPING if reads_adapter(form) else DAMPING,
        max_tokens=min(options.max_tokens, language.max_positions),
        candidates=min(options.candidates or default_candidates(len(corpus.rows)), len(corpus.rows)),
        weight_influence=weights.influence,
        weight_bm25=weights.bm25,
        weight_similarity=weights.similarity,
        encoder=None if options.encoder is None else options.encoder.resolve().name,
        weight_encoder=weights.encoder,
        weight_length=weights.length,
        weight_final=weights.final if reads_final(form, options) else None,
        final_prompt_tokens=PROMPT_TOKENS if reads_final(form, options) else None,
        features=features_kept(options.features, len(corpus.rows)),
        rendering=rendering_of(language, corpus, options.rendering),
    )


def features_kept(
    asked: Literal["auto", "exact", "compact", "none"], examples: int
) -> Literal["compact", "none"] | None:
    """What a bundle keeps of each example to score it with; None for the exact features."""
    if asked == "auto":
        asked = "exact" if examples <= EXACT_UP_TO else "compact" if examples <= COMPACT_UP_TO else "none"
    return None if asked == "exact" else asked


def _first_block(form: BundleForm, adapter_dir: Path | None, options: BuildOptions) -> int | None:
    if adapter_dir is None or not reads_adapter(form) or options.blocks == "all":
        return None
    return first_block_read(adapted_names(adapter_dir))


def reads_final(form: BundleForm, options: BuildOptions) -> bool:
    """Whether gradients at the final weights are read."""
    return form == "adapter" and options.final


def _weights(form: BundleForm, options: BuildOptions) -> FusionWeights:
    weights = options.weights or default_weights(form, final=reads_final(form, options))
    return weights if options.encoder_weight is None else replace(weights, encoder=options.encoder_weight)


def _similarity(form: BundleForm, asked: Similarity | None) -> Literal["adapter"] | None:
    """What the manifest says of the states that similarity compares.

    Raises:
        ConfigurationError: those of an adapter, in a form that does not read them.
    """
    if asked == "adapter" and not reads_adapter(form):
        raise ConfigurationError(
            f"--similarity adapter compares what an adapter saw, and the form `{form}` does not read it: choose --form adapter or adapter-forward"
        )
    chosen = asked or (ADAPTER_SIMILARITY if reads_adapter(form) else "hidden")
    return "adapter" if chosen == "adapter" else None


def default_layers(form: BundleForm, layers: int) -> tuple[int, ...]:
    """Four hidden states, evenly spaced: the embedding included for `forward`, left out for `activation`; none for `adapter`."""
    if reads_adapter(form):
        return ()
    if form == "forward":
        steps = [layers * step / (_LAYERS_READ - 1) for step in range(_LAYERS_READ)]
    else:
        steps = [layers * (step + 1) / _LAYERS_READ for step in range(_LAYERS_READ)]
    return tuple(sorted({round(step) for step in steps}))
