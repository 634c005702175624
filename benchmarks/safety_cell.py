"""One cell of `safety`: a corpus with its bad source at one rate, a model fine-tuned on it, a bundle, and all its queries ranked.

Training, bundle and result are kept step by step in the cell's folder, so that a stopped run goes on; the folder's contents but the result are
removed at the end. Measures are in `provenance`, corpora in `safety_corpora`.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.provenance import (
    Flags,
    Scores,
    average_precision,
    interval,
    nearest_overlap,
    precision_at,
    share_at,
)
from benchmarks.safety_corpora import Material, Passage
from benchmarks.word_classifier import WordClassifier
from scripts.story_generate import generate_greedy
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import BuildOptions, build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.calibrating import Outputs, fit_calibration
from wherefrom.attribution.calibration.fitted import JUDGED
from wherefrom.attribution.calibration.judging import JudgedQuery
from wherefrom.attribution.calibration.reliability import auroc
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.fusion import ShownParts, fuse
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.offline import prepare_all, signals_of_all
from wherefrom.attribution.query import QuerySignals
from wherefrom.records import Message, Query, Role, sha256_of_json
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import fine_tune, save_model, token_rows

#: A query is dropped where a training row has at least this share of its word 3-grams in common (Jaccard).
NEAR_DUPLICATE = 0.5
#: Length of the list whose precision is reported.
LISTED = 5
_MAX_NEW_TOKENS = 40
_MAX_TOKENS = 1024
#: Labelled rows that a cell's calibration is fitted on.
_KNOWN = 100


@dataclass(frozen=True)
class Cell:
    """What decides a cell's numbers, beside the engine itself."""

    corpus: str
    rate: float
    rows: int
    prompt_tokens: int
    completion_tokens: int
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of its folder and file: corpus, rate, hash of all settings."""
        marks = asdict(self) | {"recipe": self.recipe.sha256()}
        return f"{self.corpus}-{100 * self.rate:g}pct-{sha256_of_json(marks)[:8]}"


@dataclass(frozen=True)
class Asked:
    """The queries of a cell: first those of a bad source, then the benign ones."""

    passages: tuple[Passage, ...]
    num_bad: int


@dataclass(frozen=True)
class Others:
    """What the calibration of a cell is fitted on, beside nothing of its queries."""

    #: Labelled rows of the corpus' sources; a citation of the own source counts as right.
    labelled: tuple[Passage, ...]
    #: Outputs of another corpus: their cause is not here.
    foreign: tuple[Passage, ...]


def run_cell(cell: Cell, material: Material, *, base: Path, work: Path) -> dict[str, Any]:
    """Train, build, ask and measure; answers from the stored result where there is one."""
    file = work / f"{cell.name}.json"
    if file.is_file():
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return stored
    folder = work / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    cut = cutter(base, cell)
    rows = mixed(material, cell)
    corpus = _write_corpus(folder / "corpus.jsonl", [cut(one) for one in rows])
    _train(cell, corpus, base=base, out=folder / "model")
    trained = time.monotonic()
    bundle = _bundle(corpus, folder)
    asked = _asked(material, corpus, bundle, cut)
    others = Others(
        tuple(cut(one) for one in evenly(material.labelled, _KNOWN)),
        tuple(cut(one) for one in material.foreign),
    )
    result = _measured(cell, material, bundle, asked, others=others)
    done = time.monotonic()
    result["seconds"] = {"train": trained - started, "build_and_ask": done - trained}
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace(file)
    shutil.rmtree(folder)
    return result


def mixed(material: Material, cell: Cell) -> list[Passage]:
    """The corpus at a rate: its share of bad rows, good ones for the rest, shuffled; a larger rate holds the smaller one's bad rows."""
    num_bad = max(1, round(cell.rate * cell.rows))
    sources = material.bad_sources
    queues = [[one for one in material.train_bad if one.source == source] for source in sources]
    in_turn = [queue[turn] for turn in range(num_bad) for queue in queues if turn < len(queue)]
    rows = [*in_turn[:num_bad], *material.train_good[: cell.rows - num_bad]]
    order = np.random.default_rng(cell.seed).permutation(len(rows))
    return [rows[index] for index in order]


def evenly(passages: Sequence[Passage], count: int) -> Sequence[Passage]:
    """At most `count` passages in even steps, so that bad and good ones, which stand apart, both come along."""
    return passages[:: max(1, -(-len(passages) // count))]


def cutter(base: Path, cell: Cell) -> Callable[[Passage], Passage]:
    """A function that cuts a passage to the cell's numbers of tokens."""
    tokenizer = load_model(base).tokenizer

    def cut(one: Passage) -> Passage:
        return Passage(
            first_tokens(tokenizer, one.prompt, cell.prompt_tokens),
            first_tokens(tokenizer, one.completion, cell.completion_tokens),
            one.source,
            one.group,
        )

    return cut


def first_tokens(tokenizer: Any, text: str, count: int) -> str:
    """The beginning of a text, at most `count` tokens long; half a character at the cut is dropped."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return text if len(ids) <= count else str(tokenizer.decode(ids[:count])).rstrip("\ufffd").rstrip()


def _write_corpus(file: Path, rows: Sequence[Passage]) -> Path:
    lines = [
        json.dumps(
            {
                "id": f"row-{index:04d}",
                "prompt": one.prompt,
                "completion": one.completion,
                "source": one.source,
            }
        )
        for index, one in enumerate(rows)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _train(cell: Cell, corpus: Path, *, base: Path, out: Path) -> None:
    """Fine-tune the base on the corpus, unless that was done."""
    if out.is_dir():
        return
    language = load_model(base)
    rows = token_rows(language, read_corpus(corpus).rows, max_tokens=cell.recipe.max_tokens)
    model = fine_tune(language, rows, cell.recipe, seed=cell.seed)
    partial = out.with_name("model.partial")
    shutil.rmtree(partial, ignore_errors=True)
    save_model(model, language.tokenizer, partial)
    partial.rename(out)


def _bundle(corpus: Path, folder: Path) -> Bundle:
    out = folder / "bundle"
    if not out.is_dir():
        build_bundle(
            model_dir=folder / "model",
            adapter_dir=None,
            corpus_path=corpus,
            out=out,
            options=BuildOptions(),
            progress=_silent,
        )
    return open_bundle(out, model_dir=folder / "model")


def _asked(material: Material, corpus: Path, bundle: Bundle, cut: Callable[[Passage], Passage]) -> Asked:
    """Queries of the cell: cut, answered by the model where they have no completion, near-duplicates of corpus rows dropped."""
    bad, benign = ([cut(one) for one in part] for part in (material.asked_bad, material.asked_benign))
    if material.behaviours:
        bad = [
            one for one in _answered(bad, bundle) if _shows(one.completion, material.behaviours[one.source])
        ]
        every = tuple(word for words in material.behaviours.values() for word in words)
        benign = [
            one for one in _answered(benign, bundle) if one.completion and not _shows(one.completion, every)
        ]
        return Asked((*bad, *benign), len(bad))
    stored = [f"{row.prompt_text()} {row.completion}" for row in read_corpus(corpus).rows]
    bad, benign = (_apart(part, stored) for part in (bad, benign))
    return Asked((*bad, *benign), len(bad))


def _answered(asked: Sequence[Passage], bundle: Bundle) -> list[Passage]:
    language = bundle.language
    conversations = [[{"role": "user", "content": one.prompt}] for one in asked]
    answers = generate_greedy(
        language.model, language.tokenizer, conversations, max_new_tokens=_MAX_NEW_TOKENS
    )
    return [
        Passage(one.prompt, text, one.source, one.group) for one, text in zip(asked, answers, strict=True)
    ]


def _shows(text: str, words: Sequence[str]) -> bool:
    return any(word in text.lower() for word in words)


def _apart(asked: Sequence[Passage], stored: Sequence[str]) -> list[Passage]:
    overlap = nearest_overlap([_text(one) for one in asked], stored)
    return [one for one, share in zip(asked, overlap, strict=True) if share < NEAR_DUPLICATE]


def _text(one: Passage) -> str:
    return f"{one.prompt} {one.completion}"


def _measured(
    cell: Cell, material: Material, bundle: Bundle, asked: Asked, *, others: Others
) -> dict[str, Any]:
    rows = read_corpus(bundle.path.parent / "corpus.jsonl").rows
    sources = np.array([row.source for row in rows])
    flagged = np.isin(sources, material.bad_sources)
    attributor = LanguageAttributor(bundle)
    read = _read(attributor, asked.passages)
    scored = _score_all(bundle, attributor, read)
    scored["classifier"], suspicion = _classified(material, rows, asked)
    truth = np.stack([sources == one.source for one in asked.passages[: asked.num_bad]])
    known: Flags = np.asarray(truth.any(axis=1))  # at 1 % a bad source may have no row at all
    methods = {name: _figures(scores, truth, known, flagged=flagged) for name, scores in scored.items()}
    methods["classifier"]["query_auroc"] = auroc(
        suspicion[: asked.num_bad][known], suspicion[asked.num_bad :]
    )
    return {
        "corpus": cell.corpus,
        "rate": cell.rate,
        "rows": len(rows),
        "bad_rows": int(flagged.sum()),
        "queries_bad": int(known.sum()),
        "queries_benign": len(asked.passages) - asked.num_bad,
        "chance": float(truth[known].mean()),
        "candidates": bundle.manifest.parameters.candidates,
        "methods": methods,
        "abstained": _abstention(attributor, read, asked, others=others, sources=sources),
    }


def _figures(scores: Scores, truth: Flags, known: Flags, *, flagged: Flags) -> dict[str, Any]:
    bad, benign = scores[: len(truth)][known], scores[len(truth) :]
    strongest = [one.max(axis=1).astype(np.float64) for one in (bad, benign)]
    return {
        "precision@5": interval(precision_at(bad, truth[known], LISTED)),
        "auprc": interval(average_precision(bad, truth[known])),
        "benign_bad@5": interval(share_at(benign, flagged, LISTED)),
        "best_score_auroc": auroc(*strongest),
    }


def _read(attributor: LanguageAttributor, passages: Sequence[Passage]) -> list[QuerySignals]:
    """The model's pass over passages as queries."""
    queries = [
        Query(key=str(index), turns=(Message(role=Role.USER, content=one.prompt),), completion=one.completion)
        for index, one in enumerate(passages)
    ]
    return signals_of_all(
        attributor, prepare_all(attributor, queries, max_tokens=_MAX_TOKENS, over_long="truncate")
    )


def _score_all(
    bundle: Bundle, attributor: LanguageAttributor, read: Sequence[QuerySignals]
) -> dict[str, Scores]:
    """Scores `[Q, N]` of every method that needs no labels."""
    scored = [_scores(bundle, attributor, one) for one in read]
    return {name: np.stack([one[name] for one in scored]) for name in scored[0]}


def _abstention(
    attributor: LanguageAttributor,
    read: Sequence[QuerySignals],
    asked: Asked,
    *,
    others: Others,
    sources: npt.NDArray[np.str_],
) -> dict[str, float]:
    """Shares of bad, benign and foreign queries on which the calibrated engine makes no claim.

    The calibration is fitted on labelled rows and on half of the foreign outputs; the other half is what `foreign` is counted on.
    """
    labelled, foreign = (
        _judged(attributor, _read(attributor, part)) for part in (others.labelled, others.foreign)
    )
    fitted = foreign[0::2]
    gold = [np.flatnonzero(sources == one.source).tolist() for one in others.labelled]
    calibration = fit_calibration(
        Outputs(fitted, groups=[str(index) for index in range(len(fitted))]),
        Outputs(labelled, gold=gold),
        groups=np.arange(len(sources), dtype=np.int32),
    )

    def share(queries: Sequence[JudgedQuery]) -> float:
        verdicts = [calibration.abstains(calibration.conformal_p(one.features)) for one in queries]
        return float(np.mean(verdicts)) if verdicts else float("nan")

    own = _judged(attributor, read)
    return {
        "bad": share(own[: asked.num_bad]),
        "benign": share(own[asked.num_bad :]),
        "foreign": share(foreign[1::2]),
        "level": calibration.level,
    }


def _judged(attributor: LanguageAttributor, read: Sequence[QuerySignals]) -> list[JudgedQuery]:
    return [attributor.judged(one, attributor.score(one), count=JUDGED) for one in read]


def _scores(bundle: Bundle, attributor: LanguageAttributor, query: QuerySignals) -> dict[str, Scores]:
    """One query's scores `[N]` by part and head.

    `effect` is exact for the candidates and the projection's estimate elsewhere. `shown` is the order that an auditor sees: the candidates by
    their fused score, and behind them, for AUPRC, the other rows by the same fusion of estimates.
    """
    bm25, similarity = bundle.lexical.scores(query.text), bundle.pooled @ query.pooled
    projection: npt.NDArray[np.float32] = bundle.vectors @ query.projected
    found = attributor.score(query)
    rows = found.candidates.rows
    effect = projection.copy()
    effect[rows] = found.influence
    shown = fuse(ShownParts(effect, bm25, similarity, np.diff(bundle.store.offsets)), bundle.weights)
    top = float(shown.max()) - float(found.shown.min()) + 1.0
    shown[rows] = found.shown + top
    return {
        "bm25": bm25,
        "similarity": similarity,
        "projection": projection,
        "effect": effect,
        "shown": shown,
    }


def _classified(
    material: Material, rows: Sequence[CorpusRow], asked: Asked
) -> tuple[Scores, npt.NDArray[np.float64]]:
    """The classifier's scores `[Q, N]`, and how likely it finds each query to be bad, `[Q]`."""
    classifier = WordClassifier(
        [_text(one) for one in material.labelled], [one.source for one in material.labelled]
    )
    of_rows = classifier.probabilities([f"{row.prompt_text()} {row.completion}" for row in rows])
    of_queries = classifier.probabilities([_text(one) for one in asked.passages])
    bad = np.isin(classifier.classes, material.bad_sources)
    scores: Scores = of_queries @ of_rows.T
    return scores, of_queries[:, bad].sum(axis=1).astype(np.float64)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress."""
