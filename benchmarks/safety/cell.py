"""One cell of `safety`: a corpus with its bad source at one rate, a model fine-tuned on it, a bundle, and all its queries ranked.

Training, bundle and result are kept step by step in the cell's folder, so that a stopped run goes on; the folder's contents but the result are
removed at the end. Scores and figures are in `scores`, corpora in `corpora`.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.material import Passage, first_whole_tokens
from benchmarks.safety.corpora import Material
from benchmarks.safety.near_duplicates import nearest_overlap
from benchmarks.safety.scores import CellQueries, Others, measured
from demo.making.story_generate import generate_greedy
from scripts.jsonl import write_rows
from wherefrom.atomic import atomic_folder, write_text
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import load_model
from wherefrom.evaluation.asking import built_bundle
from wherefrom.records import sha256_of_json
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import fine_tune, save_model, token_rows

#: A query is dropped where a training row has at least this share of its word 3-grams in common (Jaccard).
NEAR_DUPLICATE = 0.5
_MAX_NEW_TOKENS = 40
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
    #: Hash of the sentence encoder's weights, where one is given: cells with and without it are never mixed.
    encoder: str | None = None

    @property
    def name(self) -> str:
        """Name of its folder and file: corpus, rate, hash of all settings."""
        marks = asdict(self) | {"recipe": self.recipe.sha256()}
        return f"{self.corpus}-{100 * self.rate:g}pct-{sha256_of_json(marks)[:8]}"


def run_cell(
    cell: Cell, material: Material, *, base: Path, work: Path, encoder: Path | None = None
) -> dict[str, Any]:
    """Train, build, ask and measure; answers from the stored result where there is one.

    Args:
        cell: what decides the numbers; names folder and file.
        material: the corpus' parts.
        base: folder of the model that is fine-tuned.
        work: where results are kept.
        encoder: folder of the sentence encoder whose hash the cell names.
    """
    file = work / f"{cell.name}.json"
    if file.is_file():
        stored: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return stored
    folder = work / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    cut = cutter(base, cell)
    corpus = _write_corpus(folder / "corpus.jsonl", [cut(one) for one in mixed(material, cell)])
    _train(cell, corpus, base=base, out=folder / "model")
    trained = time.monotonic()
    model = ModelFolders(folder / "model")
    bundle = built_bundle(model, corpus, folder / "bundle", BuildOptions(encoder=encoder))
    others = Others(
        tuple(cut(one) for one in evenly(material.labelled, _KNOWN)),
        tuple(cut(one) for one in material.foreign),
    )
    asked = _asked(material, corpus, bundle, cut)
    result: dict[str, Any] = {"corpus": cell.corpus, "rate": cell.rate}
    result |= measured(material, bundle, asked, others=others, rows=read_corpus(corpus).rows)
    done = time.monotonic()
    result["seconds"] = {"train": trained - started, "build_and_ask": done - trained}
    write_text(file, json.dumps(result))
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
        return replace(
            one,
            prompt=first_whole_tokens(tokenizer, one.prompt, cell.prompt_tokens),
            completion=first_whole_tokens(tokenizer, one.completion, cell.completion_tokens),
        )

    return cut


def _write_corpus(file: Path, rows: Sequence[Passage]) -> Path:
    return write_rows(
        file,
        (
            {
                "id": f"row-{index:04d}",
                "prompt": one.prompt,
                "completion": one.completion,
                "source": one.source,
            }
            for index, one in enumerate(rows)
        ),
    )


def _train(cell: Cell, corpus: Path, *, base: Path, out: Path) -> None:
    """Fine-tune the base on the corpus, unless that was done."""
    if out.is_dir():
        return
    language = load_model(base)
    rows = token_rows(language, read_corpus(corpus).rows, max_tokens=cell.recipe.max_tokens)
    model = fine_tune(language, rows, cell.recipe, seed=cell.seed)
    with atomic_folder(out) as unfinished:
        save_model(model, language.tokenizer, unfinished)


def _asked(
    material: Material, corpus: Path, bundle: Bundle, cut: Callable[[Passage], Passage]
) -> CellQueries:
    """Queries of the cell: cut, answered by the model where they have no completion, near-duplicates of corpus rows dropped."""
    bad, benign = ([cut(one) for one in part] for part in (material.asked_bad, material.asked_benign))
    if material.behaviours:
        probes = len(bad)
        bad = [
            one for one in _answered(bad, bundle) if _shows(one.completion, material.behaviours[one.source])
        ]
        every = tuple(word for words in material.behaviours.values() for word in words)
        benign = [
            one for one in _answered(benign, bundle) if one.completion and not _shows(one.completion, every)
        ]
        return CellQueries(tuple(bad), tuple(benign), probes)
    stored = [f"{row.prompt_text()} {row.completion}" for row in read_corpus(corpus).rows]
    bad, benign = (_apart(part, stored) for part in (bad, benign))
    return CellQueries(tuple(bad), tuple(benign))


def _answered(asked: Sequence[Passage], bundle: Bundle) -> list[Passage]:
    language = bundle.language
    conversations = [[{"role": "user", "content": one.prompt}] for one in asked]
    answers = generate_greedy(
        language.model, language.tokenizer, conversations, max_new_tokens=_MAX_NEW_TOKENS
    )
    return [replace(one, completion=text) for one, text in zip(asked, answers, strict=True)]


def _shows(text: str, words: Sequence[str]) -> bool:
    return any(word in text.lower() for word in words)


def _apart(asked: Sequence[Passage], stored: Sequence[str]) -> list[Passage]:
    overlap = nearest_overlap([one.text for one in asked], stored)
    return [one for one, share in zip(asked, overlap, strict=True) if share < NEAR_DUPLICATE]
