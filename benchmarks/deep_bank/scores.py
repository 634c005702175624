"""Scores of every query of the bank with every row, by every method, at the model trained on all rows; one file per method.

The forms and the baselines come from bundles that `build_bundle` makes, as a user's would. Variants of the form `adapter` are read by its own reader at other
strengths and with other damping.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.deep_bank.material import FOLDER, RECIPE, BankQuery, read_bank_queries, read_rows
from benchmarks.deep_bank.train import ensure_adapter
from benchmarks.work_folder import kept_scores
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.bundles.shards import RawShard
from wherefrom.attribution.bundles.shards import read_rows as read_signals
from wherefrom.attribution.cores import cores_of
from wherefrom.attribution.fusion import default_weights, standardise
from wherefrom.attribution.models.adapted import STRENGTH, AdapterReader
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.lora import block_of, read_lora
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.reading import BundleForm
from wherefrom.attribution.offline import read_queries
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.evaluation.asking import built_bundle, read_file
from wherefrom.evaluation.heads import baseline_scores, form_scores
from wherefrom.records import Query
from wherefrom.retraining.training import token_rows

Matrix = npt.NDArray[np.float32]
FORMS: tuple[BundleForm, ...] = ("forward", "activation", "adapter", "adapter-forward")
#: Strengths and dampings of the form `adapter` that are tried on the choosing half.
STRENGTHS = (1.0, 0.5, 0.0)
DAMPINGS = (0.1, 0.03, 0.01, 0.003)
#: Blocks, the last one excluded, that are read alone at strength .5.
BLOCKS = ((0, 15), (10, 30), (15, 30), (20, 30), (25, 30))


def all_scores(work: Path, *, variants: bool) -> dict[str, Matrix]:
    """Scores `[Q, N]` by method; what has a file in the work folder is read."""
    bench = Bench(work)
    makers: dict[str, Callable[[], Mapping[str, Matrix]]] = {
        form: partial(bench.form, form) for form in FORMS
    }
    if variants:
        makers["variants"] = bench.variants
    found = kept_scores(work, makers)
    return found | order_shown(found)


def order_shown(found: Mapping[str, Matrix]) -> dict[str, Matrix]:
    """The order shown of each form, over all rows."""
    return {
        f"{form}, order shown": shown_order(
            form,
            found.get(f"{form}, net", found[form]),
            found["bm25"],
            found["similarity"],
            final=found.get(f"{form}, final"),
        )
        for form in FORMS
    }


def shown_order(
    form: BundleForm, influence: Matrix, bm25: Matrix, similarity: Matrix, *, final: Matrix | None = None
) -> Matrix:
    """The parts of an order shown by the form's weights, without the term for lengths, which differ little here; net influence where the form has it."""
    weights = default_weights(form, final=final is not None)
    parts = [influence, bm25, similarity, *([] if final is None else [final])]
    return standardised_sum(
        parts, [weights.influence, weights.bm25, weights.similarity, weights.final][: len(parts)]
    )


class Bench:
    """Models, texts and bundles, made when they are first needed."""

    def __init__(self, work: Path) -> None:
        self._work = work
        self._adapter = ensure_adapter(work)
        self._queries: list[BankQuery] = read_bank_queries(read_rows())

    @cached_property
    def _folders(self) -> ModelFolders:
        return ModelFolders(ensure_base_model(default_cache()), self._adapter)

    def bundle(self, form: BundleForm) -> Bundle:
        """The bundle of a form, built where it is not in the work folder yet."""
        options = BuildOptions(form=form, max_tokens=RECIPE.max_tokens)
        return built_bundle(self._folders, FOLDER / "rows.jsonl", self._work / f"bundle-{form}", options)

    def form(self, form: BundleForm) -> dict[str, Matrix]:
        """Exact scores of a form; the first one brings the baselines along."""
        bundle = self.bundle(form)
        asked = read_file(LanguageAttributor(bundle), FOLDER / "queries.jsonl", max_tokens=RECIPE.max_tokens)
        return form_scores(bundle, asked) | (baseline_scores(bundle, asked) if form == FORMS[0] else {})

    def variants(self) -> dict[str, Matrix]:
        """The form `adapter` at each strength and damping, sums of strengths, and the mean of u as a similarity."""
        language = load_model(self._folders.model, self._folders.adapter)
        rows, asked = (
            token_rows(language, some, max_tokens=RECIPE.max_tokens)
            for some in (read_rows(), [one.row for one in self._queries])
        )
        adapted = read_lora(language.model, self._adapter)
        found: dict[str, Matrix] = {}
        for strength in STRENGTHS:
            reader = AdapterReader(language, adapted, similarity_layer=1, strength=strength)
            examples, queries = read_signals(rows, reader), read_signals(asked, reader)
            for damping in DAMPINGS:
                found[f"cores at {strength:g}, damping {damping:g}"] = core_cosines(
                    queries, examples, damping
                )
            if strength == STRENGTH:
                found |= _of_blocks(queries, examples, names=reader.names)
            found[f"mean u at {strength:g}"] = mean_state_cosines(queries, examples)
        for name, strengths in (("1 + .5", (1.0, 0.5)), (".5 + 0", (0.5, 0.0)), ("1 + .5 + 0", STRENGTHS)):
            parts = [found[f"cores at {one:g}, damping {DAMPINGS[1]:g}"] for one in strengths]
            found[f"cores at {name}"] = standardised_sum(parts)
        return found


def asked_queries() -> list[Query]:
    """The bank's outputs, as the engine is asked about them."""
    return read_queries(FOLDER / "queries.jsonl")[0]


def _of_blocks(queries: RawShard, examples: RawShard, *, names: Sequence[str]) -> dict[str, Matrix]:
    """Cosines `[Q, N]` of the cores of some blocks alone."""
    found: dict[str, Matrix] = {}
    for first, end in BLOCKS:
        kept = [place for place, name in enumerate(names) if first <= (block_of(name) or 0) < end]
        own, asked = (replace(one, a=one.a[:, kept], b=one.b[:, kept]) for one in (examples, queries))
        found[f"blocks {first} to {end - 1}"] = core_cosines(asked, own, DAMPINGS[1])
    return found


def core_cosines(queries: RawShard, examples: RawShard, damping: float) -> Matrix:
    """Cosines `[Q, N]` of whitened cores, whitened by the examples."""
    whitener = Whitener.fit(SecondMoments.of(examples.a, examples.b), damping)
    asked, held = (
        torch.nn.functional.normalize(cores_of(one.whitened(whitener)), dim=1) for one in (queries, examples)
    )
    return (asked @ held.T).numpy()


def mean_state_cosines(queries: RawShard, examples: RawShard) -> Matrix:
    """Cosines `[Q, N]` of what all adapted layers saw, mean over explained tokens, centred at the examples' mean."""
    asked, held = (
        torch.stack([part.mean(dim=0).flatten() for part in one.a.split(one.lengths)])
        for one in (queries, examples)
    )
    centre = held.mean(dim=0)
    unit = [torch.nn.functional.normalize(one - centre, dim=1) for one in (asked, held)]
    return (unit[0] @ unit[1].T).numpy()


def standardised_sum(parts: Sequence[Matrix], weights: Sequence[float] | None = None) -> Matrix:
    """Sum of scores, each query's brought to zero mean and unit variance first; by weights, where some are given."""
    each = [1.0] * len(parts) if weights is None else weights
    total: Matrix = np.sum(
        [
            weight * np.stack([standardise(row) for row in part])
            for part, weight in zip(parts, each, strict=True)
        ],
        axis=0,
    )
    return total
