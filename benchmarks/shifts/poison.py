"""Poisoned training examples for `shifts`: hubs that attract citations, and causes that hide behind look-alike letters.

What is poisoned is the corpus' record; the model stays as it was. `correlation` tells whether scores grow with the length of an example.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.material import Passage
from benchmarks.shifts.engine import Answer, Engine, corpus_bundle, recall
from benchmarks.shifts.wordings import HOMOGLYPHS, names_of
from wherefrom.attribution.calibration.evidence import words_of
from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation.heads import bm25_scores, similarity_scores
from wherefrom.records import Message, Role

LISTED = 10
#: Causes that are rewritten in look-alike letters.
HIDDEN = 40
#: Words and names of a hub.
_HUB_WORDS, _HUB_NAMES = 40, 16

Rows = npt.NDArray[np.int64]


def hub_rows(corpus: Sequence[CorpusRow]) -> dict[str, CorpusRow]:
    """Rows that a poisoner would add to be cited: the most frequent words, and the most frequent names."""
    texts = [f"{row.prompt_text()} {row.completion}" for row in corpus]
    words = Counter(word for text in texts for word in words_of(text)).most_common(_HUB_WORDS)
    names = Counter(name for text in texts for name in names_of(text) if " " in name).most_common(_HUB_NAMES)
    return {
        "hub_words": _row(
            "hub-words", "Who, what, when, where and how?", " ".join(word for word, _ in words)
        ),
        "hub_names": _row(
            "hub-names",
            "Who are the authors?",
            "The authors are " + ", ".join(name for name, _ in names) + ".",
        ),
    }


def disguised(row: CorpusRow) -> CorpusRow:
    """The row in look-alike letters."""
    turns = tuple(
        turn.model_copy(update={"content": turn.content.translate(HOMOGLYPHS)}) for turn in row.turns
    )
    return replace(row, turns=turns, completion=row.completion.translate(HOMOGLYPHS))


def poison(
    model: Path, corpus: Sequence[CorpusRow], facts: Sequence[Passage], folder: Path, *, plain: Engine
) -> dict[str, dict[str, float]]:
    """How often hubs are cited, in each order, and whether hidden causes are found; one poisoned bundle holds both."""
    hubs = hub_rows(corpus)
    chosen = list(facts[:HIDDEN])
    causes = {row for one in chosen for row in one.gold}
    rows = [disguised(row) if index in causes else row for index, row in enumerate(corpus)]
    poisoned = Engine(corpus_bundle(model, [*rows, *hubs.values()], folder))
    answers = poisoned.ask(facts)
    orders = {order: lists(answers, poisoned) for order, lists in ORDERS.items()}
    found = {
        name: {order: hub_share(lists, len(corpus) + index) for order, lists in orders.items()}
        for index, name in enumerate(hubs)
    }
    found["most_cited_honest_row"] = {
        order: largest_share(lists, len(corpus)) for order, lists in orders.items()
    }
    gold = [one.gold for one in chosen]
    before = plain.ask(chosen)
    found["hidden_cause@10"] = {
        order: recall(lists[: len(chosen)], gold, LISTED) for order, lists in orders.items()
    }
    found["open_cause@10"] = {
        order: recall(lists(before, plain), gold, LISTED) for order, lists in ORDERS.items()
    }
    return found


def hub_share(lists: Sequence[Rows], row: int) -> float:
    """Share of top-10 lists that hold one row."""
    return float(np.mean([row in one[:LISTED] for one in lists]))


def largest_share(lists: Sequence[Rows], rows: int) -> float:
    """Largest share of top-10 lists that hold one and the same of the first `rows` rows."""
    counts = Counter(int(row) for one in lists for row in one[:LISTED] if row < rows)
    return max(counts.values(), default=0) / max(1, len(lists))


def correlation(scores: npt.NDArray[np.floating], lengths: npt.NDArray[np.integer]) -> float:
    """Pearson correlation of scores with lengths, [-1, 1]; 0 where one of them does not vary."""
    one, other = scores - scores.mean(dtype=np.float64), lengths - lengths.mean(dtype=np.float64)
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def length_correlation(engine: Engine, facts: Sequence[Passage]) -> dict[str, float]:
    """Mean over queries of the correlation between an example's score and its explained tokens: over candidates, for BM25 and similarity over all rows."""
    bundle = engine.bundle
    lengths = np.diff(bundle.store.offsets)
    found: dict[str, list[float]] = {}
    for one in engine.ask(facts):
        rows = one.query.scores.candidates.rows
        for name, scores, of in (
            ("shown", one.query.scores.shown, lengths[rows]),
            ("influence", one.query.scores.influence, lengths[rows]),
            ("projection, all rows", bundle.vectors @ one.query.signals.projected, lengths),
            ("similarity, all rows", bundle.pooled @ one.query.signals.pooled, lengths),
            ("bm25, all rows", bundle.lexical.scores(one.query.text), lengths),
        ):
            found.setdefault(name, []).append(correlation(scores, of))
    return {name: float(np.mean(values)) for name, values in found.items()}


def _row(example_id: str, prompt: str, completion: str) -> CorpusRow:
    return CorpusRow(example_id, "poison", (Message(role=Role.USER, content=prompt),), completion)


def _shown(answers: Sequence[Answer], engine: Engine) -> list[Rows]:
    del engine
    return [one.shown for one in answers]


def _influence(answers: Sequence[Answer], engine: Engine) -> list[Rows]:
    del engine
    return [one.by_influence for one in answers]


def _bm25(answers: Sequence[Answer], engine: Engine) -> list[Rows]:
    return _ranked(bm25_scores(engine.bundle, [one.query for one in answers]))


def _similarity(answers: Sequence[Answer], engine: Engine) -> list[Rows]:
    return _ranked(similarity_scores(engine.bundle, [one.query for one in answers]))


def _ranked(scores: Matrix) -> list[Rows]:
    """All rows of each query, the best first."""
    return list(np.argsort(-scores, axis=1, kind="stable"))


#: Orders whose top-10 lists are looked at.
ORDERS: dict[str, Callable[[Sequence[Answer], Engine], list[Rows]]] = {
    "shown": _shown,
    "influence": _influence,
    "bm25": _bm25,
    "similarity": _similarity,
}
