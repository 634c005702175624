"""The demo's outputs that show a behaviour, and the orders in which the methods put the corpus' rows for each."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from demo.making.story_generate import greedy_answers
from scripts.jsonl import rows_of
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.corpus import CorpusRow, parse_row
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.library import open_bundle
from wherefrom.retraining.recipe import Lora, Recipe

STORY, ADAPTER = Path("demo/story"), Path("demo/adapter")
METHODS = ("shown", "influence", "bm25", "similarity")
#: Citations asked for: more than any list of candidates holds.
_ALL = 1000
#: As `demo.making.train_adapter` trains, with its settings.
RECIPE = Recipe(
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    warmup_share=0.05,
    final_share=0.05,
    batch_size=8,
    epochs=2,
    lora=Lora(rank=16, alpha=32),
)
Ranking = list[int]


@dataclass(frozen=True)
class Asked:
    """A prompt whose answer shows a bad behaviour, with that answer."""

    probe: str
    #: `aimed` or `hard`.
    kind: str
    source: str
    messages: list[dict[str, str]]
    completion: str


def read_corpus_rows() -> list[CorpusRow]:
    """The demo's corpus."""
    return [parse_row(one, default_id=one["id"]) for one in rows_of(STORY / "corpus.jsonl", option="--story")]


def asked_outputs() -> list[Asked]:
    """The outputs of the demo's bad behaviours that count, both halves of the hard ones, as the demo's adapter gives them."""
    chosen = json.loads((STORY / "demo.json").read_text(encoding="utf-8"))
    wanted = {*chosen["probes"], *chosen["developed"]}
    rows = [
        row
        for row in rows_of(STORY / "prompts.jsonl", option="--story")
        if row["id"] in wanted and row["true_source"] is not None
    ]
    answers = greedy_answers(ensure_base_model(default_cache()), ADAPTER, [row["messages"] for row in rows])
    return [
        Asked(row["id"], row["kind"], row["true_source"], row["messages"], answer)
        for row, answer in zip(rows, answers, strict=True)
    ]


def rankings_of(bundle: Path, asked: Sequence[Asked]) -> dict[str, list[Ranking]]:
    """Rows of the corpus in the order of each method (`METHODS`), for each output; BM25 ranks all rows, the others the candidates."""
    outputs = [{"id": one.probe, "messages": one.messages, "completion": one.completion} for one in asked]
    place = {example.example_id: example.row for example in iter_examples(bundle)}
    index = LexicalIndex.load(bundle / "lexical")
    found: dict[str, list[Ranking]] = defaultdict(list)
    base = ensure_base_model(default_cache())
    with open_bundle(bundle, model=base, adapter=ADAPTER) as opened:
        for one, result in zip(asked, opened.attribute_many(outputs, top_k=_ALL, opponents=0), strict=True):
            by_part = {
                "shown": result.citations,
                "influence": sorted(
                    result.citations, key=lambda citation: -(citation.influence_score or 0.0)
                ),
                "similarity": sorted(
                    result.citations, key=lambda citation: -(citation.similarity_score or 0.0)
                ),
            }
            for name, citations in by_part.items():
                found[name].append([place[citation.example.example_id] for citation in citations])
            prompt = "\n".join(turn["content"] for turn in one.messages if turn["role"] != "system")
            scores = index.scores(f"{prompt}\n{one.completion}")
            found["bm25"].append(np.argsort(-scores, kind="stable").tolist())
    return dict(found)
