r"""Scores of every query with every training example by every method, at one or two points of a fine-tune.

All kernel methods are sums over layers l and points p of

    k_l(q, z) = sum_{t,s} (a~_t^l . a~_s^l)(b~_t . b~_s),       cosine = sum k / (|q| |z|),   |z|^2 = sum k(z, z)

with b = d loss / d h_t^l for form `activation`, and b = d loss / d h_t^L (which is the output error (softmax - onehot) @ W) for form
`forward`; L is the last, final-normed hidden state. So one pass with gradients gives every layer of both forms. Steps are kept in a folder, one file each.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.deep_bank.proxies.adjoint import Adjoint, fit_gated, fit_linear
from wherefrom.atomic import atomic_file
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.bundles.options import default_layers
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.ekfac.factors import EkfacFactors, fit_ekfac
from wherefrom.attribution.ekfac.gradients import block_linears
from wherefrom.attribution.ekfac.scores import EkfacScorer
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import kernel_norms, segment_sum
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Form, SignalReader
from wherefrom.attribution.progress import silent
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.attribution.whitening import SecondMoments, Whitener

#: Hidden states of a model of 30 blocks that are looked at one by one.
SINGLE_LAYERS = (2, 7, 15, 22, 30)
#: Blocks whose linear layers EK-FAC and the raw gradients cover.
EKFAC_BLOCKS = 6
DAMPING = 0.1
BATCH_TOKENS = 1024
#: Queries over which the pass of form `forward` is timed.
_TIMED = 10
_BLOCK = re.compile(r"\.(\d+)\.")

Matrix = npt.NDArray[np.float32]
#: Takes states, signals and output errors of the examples' tokens, all `[S, D]`.
Fit = Callable[[Tensor, Tensor, Tensor], Adjoint]
_FITS: Mapping[str, Fit] = {"linear": fit_linear, "gated": fit_gated}


@dataclass(frozen=True)
class Read:
    """Signals of some rows; tokens of all rows stand behind each other."""

    layers: tuple[int, ...]
    a: Tensor  # [S, L, D] float32, unit RMS
    b: Tensor  # [S, L, D] float32, gradients
    lengths: tuple[int, ...]
    pooled: Tensor  # [N, D]

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """Signals a and b of one hidden state, both `[S, D]`."""
        place = self.layers.index(layer)
        return self.a[:, place], self.b[:, place]


@dataclass(frozen=True)
class Kernel:
    """Kernel values, which add up over layers and points."""

    dot: Tensor  # [Q, N]
    queries: Tensor  # [Q] squared norms
    examples: Tensor  # [N] squared norms

    def __add__(self, other: "Kernel") -> "Kernel":
        return Kernel(self.dot + other.dot, self.queries + other.queries, self.examples + other.examples)

    @property
    def cosine(self) -> Tensor:
        """Kernel values over both norms, `[Q, N]`."""
        return self.dot / (self.queries[:, None] * self.examples[None]).sqrt().clamp_min(1e-20)


@dataclass(frozen=True)
class Scores:
    """One method's scores, float32 `[Q, N]`; positive = proponent."""

    cosine: Matrix
    dot: Matrix


def layer_kernel(examples: Factors, queries: Factors) -> Kernel:
    """Whitened kernel of one layer; the whitening is fitted on the examples.

    Args:
        examples: a `[S, 1, D]`, b `[S, 1, D]`, not whitened.
        queries: the same of the queries.
    """
    moments = SecondMoments.zeros(1, 1, examples.a.shape[2])
    moments.add(examples.a, examples.b)
    whitener = Whitener.fit(moments)
    one, other = (Factors(*whitener.apply(part.a, part.b), part.lengths) for part in (examples, queries))
    pairs = (other.a[:, 0] @ one.a[:, 0].T) * (other.b[:, 0] @ one.b[:, 0].T)  # [T, S]
    dot = segment_sum(segment_sum(pairs, other.lengths).T.contiguous(), one.lengths).T
    return Kernel(dot, kernel_norms(other).square(), kernel_norms(one).square())


def evenly_spaced_linears(language: LanguageModel, blocks: int) -> list[str]:
    """Names of the linear layers of that many evenly spaced blocks."""
    chosen = {int((step + 0.5) * language.layers / blocks) for step in range(blocks)}
    found = [(name, _BLOCK.search(name)) for name in block_linears(language)]
    return [name for name, place in found if place is not None and int(place.group(1)) in chosen]


class Scoring:
    """Steps that make the scores of one set of rows and queries, each kept in a file."""

    def __init__(
        self,
        folder: Path,
        *,
        rows: tuple[Sequence[TokenRow], Sequence[TokenRow]],
        words: tuple[Sequence[CorpusRow], Sequence[CorpusRow]],
        load_point: Callable[[str], LanguageModel],
    ) -> None:
        """`rows` and `words` are examples and queries, `load_point` gives the model `final` or `half`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._examples, self._queries = rows
        self._words = words
        self._load_point = load_point
        self.steps: Mapping[str, Callable[[], Any]] = {
            "final": lambda: self._signals("final"),
            "ekfac": self._ekfac,
            "half": lambda: self._signals("half"),
            "adjoint": self._adjoint,
            "raw": self._raw,
        }

    def missing(self) -> list[str]:
        """Steps that have no file yet, in order."""
        return [name for name in self.steps if not self._file(name).exists()]

    def run(self, step: str) -> float:
        """Make one step's file; returns its seconds of processor time."""
        started = time.process_time()
        found = self.steps[step]()
        with atomic_file(self._file(step)) as unfinished:
            torch.save(found, unfinished)
        return time.process_time() - started

    def load(self, step: str) -> Any:
        """What a finished step found."""
        return torch.load(self._file(step), weights_only=False)  # our own file of this run

    def _file(self, step: str) -> Path:
        return self._folder / f"{step}.pt"

    def _signals(self, point: str) -> dict[str, Any]:
        """Signals of all rows, kernels of every layer in both forms, and the time per query."""
        language = self._load_point(point)
        forward, activation = (default_layers(form, language.layers) for form in ("forward", "activation"))
        singles = [layer for layer in SINGLE_LAYERS if layer <= language.layers]
        layers = tuple(sorted({*forward, *activation, *singles, language.layers}))
        examples, _ = read_signals(language, self._examples, layers, "activation")
        queries, seconds = read_signals(language, self._queries, layers, "activation")
        timed = self._queries[:_TIMED]
        _, plain = read_signals(language, timed, forward, "forward")
        kernels, started = {}, time.process_time()
        for layer in layers:
            for form in ("forward", "activation"):
                kernels[form, layer] = state_kernel(examples, queries, layer, form)
        of_kernels = (time.process_time() - started) / len(kernels) / len(self._queries)
        return {
            "examples": examples,
            "queries": queries,
            "kernels": kernels,
            "defaults": {"forward": forward, "activation": activation},
            "seconds": {
                "forward": plain / len(timed),
                "activation": seconds / len(self._queries),
                "kernel": of_kernels,
            },
        }

    def _factors(self) -> EkfacFactors:
        """EK-FAC factors over the examples, kept because they are the longest step."""
        folder = self._folder / "factors"
        if not (folder / "ekfac.json").exists():
            language = self._load_point("final")
            names = evenly_spaced_linears(language, EKFAC_BLOCKS)
            fit_ekfac(language, self._examples, modules=names, progress=silent).save(folder)
        return EkfacFactors.load(folder)

    def _ekfac(self) -> dict[str, Any]:
        return self._gradient_scores(self._factors())

    def _raw(self) -> dict[str, Any]:
        """Plain gradients of the same layers: the same with a curvature of one."""
        factors = self._factors()
        flat = {
            name: replace(layer, eigenvalues=torch.ones_like(layer.eigenvalues))
            for name, layer in factors.layers.items()
        }
        return self._gradient_scores(replace(factors, layers=flat))

    def _gradient_scores(self, factors: EkfacFactors) -> dict[str, Any]:
        scorer = EkfacScorer(self._load_point("final"), factors, damping=DAMPING)
        started = time.process_time()
        found = scorer.scores(self._queries, self._examples)
        seconds = (time.process_time() - started) / len(self._queries)
        return {
            "scores": Scores(found.cosine.numpy(), found.dot.numpy()),
            "seconds": seconds,
            "layers": len(factors.layers),
            "coverage": factors.facts.coverage,
        }

    def _adjoint(self) -> dict[str, Any]:
        """Kernels with predicted error signals: on the queries' side only, or on both sides."""
        held = self.load("final")
        examples, queries = held["examples"], held["queries"]
        found: dict[tuple[str, int], Kernel] = {}
        facts: dict[str, float] = {}
        for name, fit in _FITS.items():
            started = time.process_time()
            for layer in held["defaults"]["activation"]:
                one, other, likeness = _predicted(examples, queries, layer=layer, fit=fit)
                found[f"{name}, queries", layer] = layer_kernel(_factors_at(examples, layer, layer), other)
                found[f"{name}, both", layer] = layer_kernel(one, other)
                facts[f"{name}, cosine with the true signal, {layer}"] = likeness
            facts[f"{name}, seconds"] = time.process_time() - started
        return {"kernels": found, "facts": facts}

    def methods(self) -> dict[str, Scores]:
        """Scores of every method whose steps are finished."""
        done = [name for name in self.steps if name not in self.missing()]
        found = word_scores(*self._words)
        if "final" in done:
            held = self.load("final")
            points = [held] + ([self.load("half")] if "half" in done else [])
            found |= similarity(held["examples"], held["queries"])
            found |= _kernel_methods([one["kernels"] for one in points], held["defaults"])
        if "adjoint" in done:
            kernels = self.load("adjoint")["kernels"]
            for name in dict.fromkeys(name for name, _ in kernels):
                total = reduce(add, [one for (kind, _), one in kernels.items() if kind == name])
                found[f"adjoint, {name}"] = _scores_of(total)
        for name in ("raw", "ekfac"):
            if name in done:
                found[name] = self.load(name)["scores"]
        return found


def _kernel_methods(
    points: Sequence[Mapping[tuple[str, int], Kernel]], defaults: Mapping[str, Sequence[int]]
) -> dict[str, Scores]:
    """Both forms: each hidden state alone, the defaults, all looked at, and the defaults with the half-way model."""
    found = {}
    for form in ("forward", "activation"):
        single = [layer for layer in SINGLE_LAYERS if (form, layer) in points[0]]
        for layer in single:
            found[f"{form}, {layer}"] = _scores_of(points[0][form, layer])
        chosen = defaults[form]
        found[f"{form}, default"] = _scores_of(reduce(add, [points[0][form, layer] for layer in chosen]))
        if len(points) > 1:
            both = [one[form, layer] for one in points for layer in chosen]
            found[f"{form}, default + midpoint"] = _scores_of(reduce(add, both))
            found[f"{form}, midpoint alone"] = _scores_of(reduce(add, both[len(chosen) :]))
    return found


def _scores_of(kernel: Kernel) -> Scores:
    return Scores(kernel.cosine.numpy(), kernel.dot.numpy())


def word_scores(examples: Sequence[CorpusRow], queries: Sequence[CorpusRow]) -> dict[str, Scores]:
    """BM25 of every query with every example."""
    texts, asked = (
        [f"{one.prompt_text()}\n{one.completion}" for one in part] for part in (examples, queries)
    )
    index = LexicalIndex.build(texts)
    scores = np.stack([index.scores(text) for text in asked])
    return {"bm25": Scores(scores, scores)}


def similarity(examples: Read, queries: Read) -> dict[str, Scores]:
    """Cosine of pooled hidden states, centred at the examples' mean."""
    centre = examples.pooled.mean(dim=0)
    one, other = (torch.nn.functional.normalize(part.pooled - centre, dim=1) for part in (examples, queries))
    scores = (other @ one.T).numpy()
    return {"similarity": Scores(scores, scores)}


def state_kernel(examples: Read, queries: Read, layer: int, form: Form) -> Kernel:
    """Whitened kernel of a form at one hidden state, from signals of the form `activation` that hold the last one too."""
    source = examples.layers[-1] if form == "forward" else layer
    return layer_kernel(_factors_at(examples, layer, source), _factors_at(queries, layer, source))


def _factors_at(read: Read, layer: int, source: int) -> Factors:
    """States of one layer with the gradients of another (or the same) one, not whitened."""
    return Factors(read.of(layer)[0][:, None], read.of(source)[1][:, None], read.lengths)


def _predicted(examples: Read, queries: Read, *, layer: int, fit: Fit) -> tuple[Factors, Factors, float]:
    """Examples and queries with predicted signals at a layer, and the mean cosine of the queries' with the true ones."""
    last = examples.layers[-1]
    adjoint = _same if layer == last else fit(*examples.of(layer), examples.of(last)[1])
    guessed = [adjoint(part.of(layer)[0], part.of(last)[1]) for part in (examples, queries)]
    one, other = (
        Factors(part.of(layer)[0][:, None], signals[:, None], part.lengths)
        for part, signals in zip((examples, queries), guessed, strict=True)
    )
    likeness = torch.nn.functional.cosine_similarity(guessed[1], queries.of(layer)[1], dim=1).mean()
    return one, other, float(likeness)


def _same(_states: Tensor, errors: Tensor) -> Tensor:
    """At the last hidden state the output error is the error signal."""
    return errors


def read_signals(
    language: LanguageModel, rows: Sequence[TokenRow], layers: tuple[int, ...], form: Form
) -> tuple[Read, float]:
    """Signals of rows in their order, and the seconds of processor time that they took."""
    reader = SignalReader(language, form=form, layers=layers, similarity_layer=round(0.75 * language.layers))
    started = time.process_time()
    a: dict[int, Tensor] = {}
    b: dict[int, Tensor] = {}
    pooled: dict[int, Tensor] = {}
    for batch in pack_rows([len(row.ids) for row in rows], BATCH_TOKENS):
        read = reader.read([rows[index] for index in batch])
        lengths = list(read.lengths)
        for place, (one, other) in enumerate(zip(read.a.split(lengths), read.b.split(lengths), strict=True)):
            a[batch[place]], b[batch[place]], pooled[batch[place]] = one, other, read.pooled[place]
    seconds = time.process_time() - started
    order = range(len(rows))
    found = Read(
        layers,
        torch.cat([a[index] for index in order]),
        torch.cat([b[index] for index in order]),
        tuple(len(a[index]) for index in order),
        torch.stack([pooled[index] for index in order]),
    )
    return found, seconds
