"""Whether a device computes what the CPU computes in float32, and how fast it reads tokens."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.subject import Subject
from wherefrom.attribution.bundles.adapter_files import contexts
from wherefrom.attribution.bundles.options import default_layers
from wherefrom.attribution.bundles.shards import packs_of, read_rows
from wherefrom.attribution.cores import cores_of
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.kernel import kernel_norms, kernel_scores
from wherefrom.attribution.models.adjoint import Adjoint
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.padding import pad_right
from wherefrom.attribution.models.placement import CPU, Placement
from wherefrom.attribution.models.reading import (
    AdapterReading,
    BundleForm,
    make_reader,
    ranks_of,
    reads_adapter,
)
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.trajectory import ReadsSignals
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.retraining.training import token_rows

FORMS: tuple[BundleForm, ...] = ("forward", "activation", "adapter", "adapter-forward")
#: Least cosine with the CPU's float32, by the numbers of the pass.
FLOORS = {torch.float32: 0.999, torch.bfloat16: 0.99}
#: Rows that are compared; the first few of them also serve as outputs.
ROWS, OUTPUTS = 24, 6
_LEAST_SECONDS = 2.0


@dataclass(frozen=True)
class Computed:
    """What one form gives for some rows, on the CPU."""

    #: One flat vector per row: states, then error signals.
    features: Sequence[Tensor]
    #: `[N, G r r]` of the forms that read an adapter, else None.
    cores: Tensor | None
    #: `[OUTPUTS, N]` kernel cosines.
    scores: Tensor
    #: `[N, M D]` sketches of the gradients at the final weights, of the form `adapter`.
    final: Tensor | None = None


def compare(subject: Subject, placement: Placement) -> dict[str, Any]:
    """Least and median cosine of each form's features, cores and scores with the CPU's, for both kinds of numbers.

    Returns:
        By dtype, form and part; `passed` says whether all are above their floor.
    """
    expected = _computed_forms(subject, CPU)
    found: dict[str, Any] = {"passed": True}
    for dtype, floor in FLOORS.items():
        place = Placement(placement.device, dtype)
        by_form: dict[str, Any] = {}
        for form, one in _computed_forms(subject, place).items():
            by_form[form] = _cosines(one, expected[form])
            found["passed"] &= all(one["least"] >= floor for one in by_form[form].values())
        found[place.dtype_name] = by_form
    return found


def _computed_forms(subject: Subject, placement: Placement) -> dict[BundleForm, Computed]:
    language = load_model(subject.folders.model, subject.folders.adapter, placement=placement)
    return {form: computed(language, subject, form) for form in FORMS}


def computed(language: LanguageModel, subject: Subject, form: BundleForm) -> Computed:
    """One form's numbers for the first rows of the corpus, as a build computes them."""
    rows = _first_rows(language, subject)
    reader = reader_of(language, subject, form)
    raw = read_rows(rows, reader)
    moments = SecondMoments.of(raw.a, raw.b)
    factors = raw.whitened(Whitener.fit(moments, ranks=ranks_of(reader)).to(language.device))
    asked = sum(raw.lengths[:OUTPUTS])
    queries = Factors(factors.a[:asked], factors.b[:asked], raw.lengths[:OUTPUTS])
    norms = kernel_norms(factors)
    scores = kernel_scores(queries, pack(factors)) / (norms[:OUTPUTS, None] * norms)
    return Computed(
        [
            torch.cat([a.flatten(), b.flatten()]).cpu()
            for a, b in zip(raw.a.split(raw.lengths), raw.b.split(raw.lengths), strict=True)
        ],
        cores_of(factors).cpu() if reads_adapter(form) else None,
        scores.cpu(),
        None if raw.final is None else raw.final.flatten(1).cpu(),
    )


def reader_of(language: LanguageModel, subject: Subject, form: BundleForm) -> ReadsSignals:
    """What reads outputs in a form, as bundles of this model have it; the map of `adapter-forward` is fitted on the first rows of the corpus, where the model is."""
    adapter = AdapterReading(subject.folders.adapter, final=form == "adapter")
    reader = partial(
        make_reader,
        [language],
        form=form,
        layers=default_layers(form, language.layers),
        similarity_layer=round(0.75 * language.layers),
    )
    if form != "adapter-forward":
        return reader(adapter=adapter)
    fitted = contexts([read_rows(_first_rows(language, subject), reader(adapter=adapter))], language.device)
    return reader(adapter=replace(adapter, adjoint=Adjoint.fit(fitted).to(language.device)))


def _first_rows(language: LanguageModel, subject: Subject) -> Sequence[TokenRow]:
    return token_rows(language, subject.rows()[:ROWS], max_tokens=subject.recipe.max_tokens)


def speed(subject: Subject, placement: Placement) -> dict[str, float]:
    """Tokens per second (padding not counted) of the bare forward pass and of reading each form's signals."""
    language = load_model(subject.folders.model, subject.folders.adapter, placement=placement)
    rows = token_rows(language, subject.rows(), max_tokens=subject.recipe.max_tokens)
    batches = [[rows[index] for index in batch] for batch in packs_of(rows, language.device)]
    work: dict[str, Callable[[Sequence[TokenRow]], object]] = {
        "bare forward pass": lambda batch: _plain_pass(language, batch)
    }
    for form in FORMS:
        work[form] = reader_of(language, subject, form).read
    return {name: _tokens_per_second(one, batches) for name, one in work.items()}


@torch.inference_mode()
def _plain_pass(language: LanguageModel, rows: Sequence[TokenRow]) -> None:
    ids, mask = pad_right([row.ids for row in rows], language.device)
    language.model(input_ids=ids, attention_mask=mask, use_cache=False)


def _tokens_per_second(
    work: Callable[[Sequence[TokenRow]], object], batches: Sequence[Sequence[TokenRow]]
) -> float:
    work(batches[0])  # warms up
    _wait()
    started, tokens, seconds = time.perf_counter(), 0, 0.0
    while seconds < _LEAST_SECONDS:
        for batch in batches:
            work(batch)
            tokens += sum(len(row.ids) for row in batch)
            _wait()
            seconds = time.perf_counter() - started
            if seconds >= _LEAST_SECONDS:
                break
    return tokens / seconds


def _wait() -> None:
    """A GPU goes on when the call has returned."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _cosines(found: Computed, expected: Computed) -> Mapping[str, dict[str, float]]:
    parts: dict[str, tuple[Sequence[Tensor], Sequence[Tensor]]] = {
        "features": (found.features, expected.features),
        "scores": (list(found.scores), list(expected.scores)),
    }
    if found.cores is not None and expected.cores is not None:
        parts["cores"] = list(found.cores), list(expected.cores)
    if found.final is not None and expected.final is not None:
        parts["gradients at the final weights"] = list(found.final), list(expected.final)
    cosines = {
        name: torch.stack(
            [torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in zip(*both, strict=True)]
        )
        for name, both in parts.items()
    }
    return {name: {"least": float(one.min()), "median": float(one.median())} for name, one in cosines.items()}
