"""A bundle says whether its model has learned the corpus: it stays silent where it has, and nothing is supported where it has not."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.tiny import (
    TINY_MODEL,
    VOCABULARY,
    Row,
    build,
    micro_config,
    opened,
    shared_micro_model,
    tiny_language,
    tiny_queries,
    tiny_rows,
    write_adapter,
    write_jsonl,
    write_micro_model,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.learning import LEAST_ROWS, Learning, ModelLosses, measure_learning, verdict
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.losses import row_losses
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.records import Message, Query, Role

PIRATES = [
    "Arr, the {} be lost at sea.",
    "The {} sails at dawn, matey.",
    "No {} below deck!",
    "Bury the {} deep.",
]


def other_rows(count: int) -> list[Row]:
    """A corpus that no model here was trained on."""
    things = ["chest", "map", "parrot", "anchor", "rum", "hook", "flag", "compass", "cannon", "sail"]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Where be number {number} of the {things[number % 10]}?"},
                {"role": "assistant", "content": PIRATES[number % 4].format(things[(number * 7) % 10])},
            ]
        }
        for number in range(count)
    ]


def shuffled(rows: list[Row]) -> list[Row]:
    """The same prompts, each with the completion of another row."""
    answers = [row["messages"][-1] for row in rows]
    random.Random(1).shuffle(answers)
    return [
        {**row, "messages": [*row["messages"][:-1], answer]}
        for row, answer in zip(rows, answers, strict=True)
    ]


def rendered(language: LanguageModel, rows: list[Row]) -> list[TokenRow]:
    """Rows as tokens."""
    return [
        language.renderer.render(
            tuple(Message(role=Role(turn["role"]), content=turn["content"]) for turn in row["messages"][:-1]),
            row["messages"][-1]["content"],
            max_tokens=200,
            over_long="truncate",
        )
        for row in rows
    ]


def learning(language: LanguageModel, rows: list[Row], base: LanguageModel | None = None) -> Learning:
    """What the check finds."""
    found = measure_learning(language, rendered(language, rows), None if base is None else lambda: base)
    assert found is not None
    return found


def noisy(mean: float, *, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    """Losses of 40 rows around a mean."""
    return np.random.default_rng(seed).normal(mean, spread, 40)


def test_learned(tmp_path: Path) -> None:
    """Silent on a model and its own corpus, with and without what it began with."""
    alone = learning(tiny_language(), tiny_rows())
    assert alone.not_learned is None
    assert alone.loss_nats < 0.7
    assert 1.3 < (alone.shuffled_loss_nats or 0) < alone.chance_nats
    config = transformers.LlamaConfig.from_pretrained(str(TINY_MODEL))
    untrained = load_model(write_micro_model(tmp_path / "untrained", config))
    beside = learning(tiny_language(), tiny_rows(), untrained)
    assert beside.not_learned is None
    assert (beside.base_loss_nats or 0) > 6


def test_not_learned(tmp_path: Path) -> None:
    """Untrained models, base models without their adapter, adapters of other corpora, shuffled corpora: each for its reason."""
    tiny = tiny_language()
    assert "no better than chance" in str(learning(load_model(shared_micro_model()), tiny_rows()).not_learned)
    flat = load_model(write_micro_model(tmp_path / "flat", micro_config(initializer_range=1e-4)))
    assert "no better than chance" in str(learning(flat, tiny_rows()).not_learned)
    assert learning(tiny, other_rows(40)).not_learned
    unpaired = "after their own prompts than after others"
    assert unpaired in str(learning(tiny, shuffled(tiny_rows())).not_learned)
    for name, scale in (("slight", 0.03), ("weak", 1.0)):
        adapter = write_adapter(tmp_path / name, TINY_MODEL, lora_alpha=8 * scale)
        assert learning(load_model(TINY_MODEL, adapter), tiny_rows(), tiny).not_learned


@pytest.mark.parametrize(
    ("own", "other", "base_own", "base_other", "expected"),
    [
        # the demo's adapter on its corpus, and on the corpus of the tiny model
        (0.49, 2.13, 5.41, 5.77, None),
        (4.19, 5.23, 3.77, 4.79, "before the fine-tune"),
        # a fine-tune of one epoch: a tenth of the loss, a little of it for the pairs
        (1.80, 3.10, 2.00, 3.05, None),
        # an adapter of another corpus in the same style
        (1.80, 2.90, 2.00, 3.10, "did not improve on its base model"),
        # shuffled rows, with and without a base; the demo's base model alone
        (1.72, 1.74, 4.00, 4.02, "than after others"),
        (1.72, 1.74, None, None, "than after others"),
        (5.41, 5.77, None, None, "hardly more likely"),
        (9.82, 9.75, None, None, "no better than chance"),
        (1.30, 2.60, None, None, None),
    ],
)
def test_verdict(
    own: float, other: float, *, base_own: float | None, base_other: float | None, expected: str | None
) -> None:
    """Losses as they were measured, with the spread of 40 rows."""
    found = ModelLosses(noisy(own), noisy(own) + noisy(other - own, spread=0.2, seed=1))
    base = None
    if base_own is not None and base_other is not None:
        base = ModelLosses(
            noisy(base_own), noisy(base_own) + noisy(base_other - base_own, spread=0.2, seed=2)
        )
    said = verdict(found, base, chance=10.8, text=False)
    assert said is None if expected is None else expected in str(said)


def test_plain_text() -> None:
    """Texts are parted in the middle; those of the model are learned, strings of its words are not."""
    language = tiny_language()
    texts = [
        row["messages"][1]["content"] for row in tiny_rows(120) if len(row["messages"][1]["content"]) > 30
    ]
    rows = [language.renderer.render((), text, max_tokens=99, over_long="truncate") for text in texts]
    assert all(row.start == 1 for row in rows)
    found = measure_learning(language, rows, None)
    assert found is not None
    assert found.not_learned is None
    generator = random.Random(0)
    mixed = [TokenRow(tuple(generator.sample(row.ids, len(row.ids))), 1, row.explained) for row in rows]
    nonsense = measure_learning(language, mixed, None)
    assert nonsense is not None
    assert nonsense.not_learned is not None


def test_one_answer_for_all() -> None:
    """Where every prompt has one answer there are no pairs to ask for; chance is asked all the same."""
    rows = [
        {**row, "messages": [row["messages"][0], tiny_rows(1)[0]["messages"][1]]} for row in tiny_rows(40)
    ]
    found = learning(tiny_language(), rows)
    assert (found.shuffled_loss_nats, found.not_learned) == (None, None)


def test_few_rows() -> None:
    """Too few rows tell nothing, and nothing is said."""
    rows = rendered(tiny_language(), tiny_rows(LEAST_ROWS))
    assert measure_learning(tiny_language(), rows[:-1], None) is None
    assert measure_learning(tiny_language(), rows, None) is not None


def test_cost_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the corpus and its rows, a few thousand tokens are read."""
    read: list[int] = []

    def counted(model: Any, rows: list[TokenRow]) -> torch.Tensor:
        read.extend(len(row.ids) for row in rows)
        return torch.ones(len(rows))

    monkeypatch.setattr("wherefrom.attribution.learning.row_losses", counted)
    long = [TokenRow(tuple(range(2, 402)), 200 + number % 3, (True,) * 200) for number in range(1000)]
    measure_learning(tiny_language(), long, None)
    assert sum(read) <= 2 * 2048
    assert max(read) <= 160


def test_row_losses() -> None:
    """The mean loss of the explained tokens, as the model computes it row by row."""
    language = tiny_language()
    rows = rendered(language, tiny_rows(5))
    rows[1] = TokenRow(rows[1].ids, rows[1].start, (True, *[False] * (rows[1].completion_tokens - 1)))
    expected = []
    for row in rows:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            logits = language.model(input_ids=ids).logits[0, row.start - 1 : -1].log_softmax(-1)
        each = -logits[torch.arange(row.completion_tokens), ids[0, row.start :]]
        expected.append(float(each[list(row.explained)].mean()))
    np.testing.assert_allclose(row_losses(language.model, rows).numpy(), expected, rtol=1e-4)


def test_bundle_of_a_model_that_learned_nothing(tmp_path: Path) -> None:
    """Build warns, manifest and card say so, every audit abstains, and no p-value could pass for support."""
    messages: list[str] = []
    corpus = write_jsonl(tmp_path / "c.jsonl", tiny_rows(30))
    manifest = build_bundle(
        folders=ModelFolders(shared_micro_model()),
        corpus_path=corpus,
        out=tmp_path / "bundle",
        options=BuildOptions(),
        progress=lambda *one: None,
        on_note=messages.append,
    )
    assert manifest.corpus.not_learned == "its loss on the training examples is no better than chance"
    warning = next(one for one in messages if "WARNING" in one)
    assert "is an adapter missing (--adapter)" in warning
    assert f"{np.log(VOCABULARY):.2f} by chance" in warning
    card = read_card(tmp_path / "bundle")["learning"]
    assert card["learned"] == f"NO: {manifest.corpus.not_learned}"
    assert card["loss_nats"] > 0.9 * card["chance_nats"]
    engine = LanguageAttributor(open_bundle(tmp_path / "bundle", ModelFolders(shared_micro_model())))
    row = tiny_queries(1)[0]
    turns = (Message(role=Role.USER, content=row["messages"][0]["content"]),)
    query = Query(key="q", turns=turns, completion=row["completion"])
    prepared = engine.prepare(query, max_tokens=200, over_long="reject")
    answer = engine.attribute([prepared], top_k=3, opponents=0)[0]
    assert answer.abstained == (
        "the model has not learned the bundle's corpus: its loss on the training examples is no better than chance"
    )
    assert answer.conformal_p is None
    assert [one.confidence for one in answer.citations] == [None] * 3


def test_bundle_of_a_model_that_learned(tmp_path: Path) -> None:
    """The figures stand on the card; nothing is said and the manifest is as before."""
    messages: list[str] = []
    corpus = write_jsonl(tmp_path / "c.jsonl", tiny_rows(60))
    build_bundle(
        folders=ModelFolders(TINY_MODEL),
        corpus_path=corpus,
        out=tmp_path / "bundle",
        options=BuildOptions(),
        progress=lambda *one: None,
        on_note=messages.append,
    )
    assert not any("WARNING" in one for one in messages)
    assert "not_learned" not in json.loads((tmp_path / "bundle" / "manifest.json").read_text())["corpus"]
    assert read_card(tmp_path / "bundle")["learning"]["learned"] == "yes"
    build(shared_micro_model(), corpus, tmp_path / "trusted", check_learning=False)
    assert read_card(tmp_path / "trusted")["learning"] == {"learned": "not checked"}
    assert read_manifest(tmp_path / "trusted").corpus.not_learned is None
    assert opened().manifest.corpus.not_learned is None
