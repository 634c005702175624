"""Makes the effect meter of a bundle: which model, which corpus and which recipe are trained again.

The settings say how the audited model was fine-tuned (`recipe`) and from what (`base_model_dir`; of an adapter the bundle's own base
model is known). The corpus comes from the bundle, whose examples are text; a chat with a system turn or several turns cannot be made
from that, so `recipe_corpus` may name the file. Every row is compared with the hash that the bundle has of it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from db.storing.examples import storable_name
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.manifest import Manifest, read_manifest
from wherefrom.attribution.bundles.model_location import find_model
from wherefrom.attribution.interface import EffectMeter, KeepGoing
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.errors import (
    BundleMismatch,
    MeasuringUnavailable,
    NotFound,
)
from wherefrom.records import (
    BundleInfo,
    ControlEffect,
    GroupRequest,
    MeasuredEffect,
    Message,
    Method,
    Query,
    Role,
    TrainingExample,
)
from wherefrom.retraining.preflight import check_recipe
from wherefrom.retraining.recipe import Recipe, read_recipe
from wherefrom.settings import Settings
from worker.bundle_homes import hold_bundle, stated_manifest
from worker.pool.placing import MEASURER, place_process
from worker.pool.verify import check_registered

if TYPE_CHECKING:
    from wherefrom.attribution.corpus import CorpusRow, ReadAs
    from wherefrom.attribution.models.model import LanguageModel
    from wherefrom.attribution.models.placement import Placement

#: Matched controls of the weak methods; retraining has its own default.
WEAK_CONTROLS = 3


def open_meter(bundle: BundleInfo, settings: Settings) -> EffectMeter:
    """The meter over a bundle's folder.

    Raises:
        MeasuringUnavailable: a setting is missing, or the corpus cannot be made whole; the text says what to set.
        UnknownBundle, BundleCorrupt, BundleMismatch: the bundle is not the one that is registered.
        ConfigurationError: the recipe cannot be used.
    """
    recipe = read_recipe(settings.recipe_file())
    folder = settings.bundles_dir / bundle.name
    # Optional extra [engine]: the other processes of the service run without torch.
    import torch

    from wherefrom.attribution.bundles.reading import read_as
    from wherefrom.attribution.groups import read_groups
    from wherefrom.retraining import effects, weak  # noqa: F401 - seconds of imports, before a lease runs

    if settings.torch_threads:
        torch.set_num_threads(settings.torch_threads)
    with hold_bundle(settings, bundle.name):
        manifest = read_manifest(folder, hashes=HashMemory.of_machine(settings))
        check_registered(bundle, manifest)
        corpus = whole_corpus(
            list(iter_examples(folder)), settings.recipe_corpus, how=read_as(manifest.corpus.reading)
        )
        groups = read_groups(folder, len(corpus)).tolist()
    return RetrainingMeter(
        manifest,
        corpus,
        groups=groups,
        recipe=recipe,
        base_dir=lambda: _base_dir(folder, manifest, settings),
        final=lambda: find_model(folder, manifest, settings.models_dir),
        runs_dir=settings.measure_dir / bundle.name,
        placement=place_process(settings, MEASURER),
    )


def whole_corpus(
    examples: Sequence[TrainingExample], corpus_file: Path | None, *, how: "ReadAs | None" = None
) -> list["CorpusRow"]:
    """The training corpus as the model saw it, in the bundle's order; every row has the hash that the bundle states.

    Raises:
        MeasuringUnavailable: a row cannot be made from the bundle's text, or the corpus file holds another one.
    """
    from wherefrom.attribution.corpus import CorpusRow, read_corpus

    given = {}
    if corpus_file is not None:
        given = {row.example_id: row for row in read_corpus(corpus_file, how=how).rows}
    rows = []
    for example in examples:
        turns = (Message(role=Role.USER, content=example.prompt),) if example.prompt else ()
        plain = CorpusRow(
            example.example_id, example.source, turns, example.completion, example.fields, plain_prompt=True
        )
        row = given.get(example.example_id, plain)
        if row.text_sha256() != example.text_sha256:
            where = (
                f"{corpus_file} holds another text"
                if corpus_file
                else "the bundle holds only a part of its text"
            )
            raise MeasuringUnavailable(
                f"training example {example.example_id!r}: {where}; set WHEREFROM_RECIPE_CORPUS to the corpus file that the model was trained on"
            )
        rows.append(row)
    return rows


def check_suited(bundle: BundleInfo, settings: Settings) -> tuple[Recipe, Manifest]:
    """The recipe and the bundle, where the models are there and the recipe suits them.

    Raises:
        MeasuringUnavailable: it is not known where the model before the fine-tune is.
        UnusableModel: the bundle's model is not on this machine.
        ConfigurationError: the recipe cannot be read, or does not suit.
        UnknownBundle, BundleCorrupt: the bundle is not there.
    """
    recipe, folder = read_recipe(settings.recipe_file()), settings.bundles_dir / bundle.name
    manifest = stated_manifest(settings, bundle.name)
    base = _base_dir(folder, manifest, settings)
    adapter = None
    if manifest.model.adapter_sha256 is not None:
        adapter = find_model(folder, manifest, settings.models_dir).adapter
    check_recipe(recipe, manifest, base=base, adapter=adapter)
    return recipe, manifest


def _base_dir(folder: Path, manifest: Manifest, settings: Settings) -> Path:
    if settings.base_model_dir is not None:
        return settings.base_model_dir
    if manifest.model.adapter_sha256 is None:
        raise MeasuringUnavailable(
            f"set WHEREFROM_BASE_MODEL_DIR: bundle {manifest.name} explains whole weights, and the model before the fine-tune is not known"
        )
    return find_model(folder, manifest, settings.models_dir).model


class RetrainingMeter:
    """Measures by training again, or by one step from the final weights; models are loaded when first needed."""

    def __init__(
        self,
        manifest: Manifest,
        corpus: Sequence["CorpusRow"],
        *,
        groups: Sequence[int],
        recipe: Recipe,
        base_dir: Callable[[], Path],
        final: Callable[[], ModelFolders],
        runs_dir: Path,
        placement: "Placement",
    ) -> None:
        self._manifest = manifest
        self._corpus = corpus
        self._rows = {storable_name(row.example_id): number for number, row in enumerate(corpus)}
        self._groups = groups
        self._recipe = recipe
        self._base_dir = base_dir
        self._find_final = final
        self._runs_dir = runs_dir
        self._placement = placement
        self._base: LanguageModel | None = None
        self._final: LanguageModel | None = None

    def measure(
        self, query: Query, example_id: str, *, method: Method, keep_going: KeepGoing
    ) -> MeasuredEffect:
        """The effect of one training example's near-duplicate group, or of the example alone by a weak method."""
        from wherefrom.attribution.memory import memory_errors

        if example_id not in self._rows:
            raise NotFound(
                f"the corpus of bundle {self._manifest.name} has no training example {example_id!r}"
            )
        row = self._rows[example_id]
        with memory_errors("the model while it was trained"):
            if method is Method.REFIT:
                alike = tuple(other for other, of in enumerate(self._groups) if of == self._groups[row])
                return self._refit(query, alike, keep_going)
            return self._one_step(query, row, method=method, keep_going=keep_going)

    def measure_group(self, query: Query, request: GroupRequest, *, keep_going: KeepGoing) -> MeasuredEffect:
        """The effect of a group of training examples, left out together."""
        from wherefrom.attribution.memory import memory_errors

        rows = self._rows_of(request)
        alike = {self._groups[row] for row in rows}
        avoid = frozenset(row for row, of in enumerate(self._groups) if of in alike)
        with memory_errors("the model while it was trained"):
            return self._refit(query, rows, keep_going, avoid=avoid)

    def _rows_of(self, request: GroupRequest) -> tuple[int, ...]:
        """Rows of a group, in order.

        Raises:
            NotFound: the corpus lacks one of the ids, or has nothing of that source.
        """
        if request.source is not None:
            name = storable_name(request.source)
            rows = [row for row, one in enumerate(self._corpus) if storable_name(one.source) == name]
            if not rows:
                raise NotFound(f"the corpus of bundle {self._manifest.name} has no source {request.source!r}")
            return tuple(rows)
        missing = [one for one in request.example_ids if storable_name(one) not in self._rows]
        if missing:
            raise NotFound(
                f"the corpus of bundle {self._manifest.name} has no training example {missing[0]!r}"
                f" ({len(missing)} of {len(request.example_ids)} ids are unknown)"
            )
        return tuple(sorted({self._rows[storable_name(one)] for one in request.example_ids}))

    def _refit(
        self,
        query: Query,
        group: tuple[int, ...],
        keep_going: KeepGoing,
        *,
        avoid: frozenset[int] = frozenset(),
    ) -> MeasuredEffect:
        from wherefrom.retraining.effects import CitationToMeasure, measure_citations

        keep_going()
        found = measure_citations(
            self._base_model(),
            self._corpus,
            queries=[query],
            citations=[CitationToMeasure(query=0, group=group, avoid=avoid)],
            recipe=self._recipe,
            folder=self._runs_dir,
            progress=lambda done, total: keep_going(),  # noqa: ARG005 - the numbers are for progress bars
        )[0]
        controls = zip(found.control_groups, found.controls_nats, strict=True)
        return MeasuredEffect(
            effect_nats=found.effect_nats,
            low_nats=found.low_nats,
            high_nats=found.high_nats,
            z=found.z if abs(found.z) != float("inf") else None,
            seeds=len(found.by_seed),
            controls=tuple(
                ControlEffect(example_ids=self._ids(rows), effect_nats=nats) for rows, nats in controls
            ),
            controls_mean_nats=found.controls_mean_nats,
            group=self._ids(group),
            weak=False,
            cost_seconds=found.seconds,
        )

    def _one_step(self, query: Query, row: int, *, method: Method, keep_going: KeepGoing) -> MeasuredEffect:
        from wherefrom.retraining.effects import matched_controls
        from wherefrom.retraining.training import token_rows
        from wherefrom.retraining.weak import one_step, unlearn

        started, language = time.monotonic(), self._final_model()
        limit = self._recipe.max_tokens
        asked = token_rows(language, [query], max_tokens=limit)
        rows = token_rows(language, self._corpus, max_tokens=limit)
        controls = matched_controls(
            (row,),
            lengths=[len(one.ids) for one in rows],
            sources=[one.source for one in self._corpus],
            avoid=[other for other, of in enumerate(self._groups) if of == self._groups[row]],
            count=WEAK_CONTROLS,
        )
        effects = []
        for number in (row, *(group[0] for group in controls)):
            keep_going()
            step = one_step if method is Method.ONE_STEP else unlearn
            effects.append(float(step(language, asked, rows[number])[0]))
        return MeasuredEffect(
            effect_nats=effects[0],
            seeds=0,
            controls=tuple(
                ControlEffect(example_ids=self._ids(group), effect_nats=nats)
                for group, nats in zip(controls, effects[1:], strict=True)
            ),
            group=self._ids((row,)),
            weak=True,
            cost_seconds=time.monotonic() - started,
        )

    def _ids(self, rows: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._corpus[row].example_id for row in rows)

    def _base_model(self) -> "LanguageModel":
        """What the fine-tune began with; of an adapter the base model with the adapter's tokenizer, template and number of embeddings."""
        if self._base is None:
            known = self._manifest.model
            adapter = None if known.adapter_sha256 is None else self._find_final().adapter
            folder = self._base_dir()
            language = self._load(ModelFolders(folder, adapter), merge=False)
            if known.adapter_sha256 is not None and not self._is_explained(language):
                raise BundleMismatch(
                    f"{folder} is not the model that the adapter of bundle {self._manifest.name} was trained on, or {adapter} is another adapter"
                )
            self._base = self._rendered_as_audited(language)
        return self._base

    def _rendered_as_audited(self, base: "LanguageModel") -> "LanguageModel":
        """The base model with the tokenizer and chat template of the audited model, whose training read its texts by them.

        Raises:
            MeasuringUnavailable: the base model has other embeddings than that tokenizer needs.
        """
        if base.fingerprint.tokenizer_sha256 == self._manifest.model.tokenizer_sha256:
            return base
        audited = self._load(self._find_final(), merge=True)
        sizes = [len(one.model.get_input_embeddings().weight) for one in (base, audited)]
        if sizes[0] != sizes[1]:
            raise MeasuringUnavailable(
                f"the base model {base.base_folder} has {sizes[0]} embeddings, the audited model {sizes[1]}. Set WHEREFROM_BASE_MODEL_DIR to the model "
                "from which the fine-tune started, with its new embeddings"
            )
        return replace(base, tokenizer=audited.tokenizer, renderer=audited.renderer)

    def _final_model(self) -> "LanguageModel":
        if self._final is None:
            language = self._load(self._find_final(), merge=True)
            if not self._is_explained(language):
                raise BundleMismatch(
                    f"the model beside bundle {self._manifest.name} is not the one that it explains"
                )
            self._final = language
        return self._final

    def _is_explained(self, language: "LanguageModel") -> bool:
        known, found = self._manifest.model, language.fingerprint
        return (found.weights_sha256, found.adapter_sha256) == (known.weights_sha256, known.adapter_sha256)

    def _load(self, folders: ModelFolders, *, merge: bool) -> "LanguageModel":
        from wherefrom.attribution.models.model import load_model

        rule = self._manifest.parameters.rendering
        return load_model(folders.model, folders.adapter, rule=rule, merge=merge, placement=self._placement)
