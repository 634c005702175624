"""Figures of one cell: every method's order, what a sentence encoder adds, and cells that nobody can ask about a bad source."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.material import Passage, queries_of
from benchmarks.safety.cell import Cell
from benchmarks.safety.corpora import Material
from benchmarks.safety.run import audits, line, table
from benchmarks.safety.scores import CellQueries, Others, _scores, measured
from tests.tiny import (
    build,
    shared_micro_model,
    tiny_rows,
    write_encoder,
    write_jsonl,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.corpus import read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.evaluation.asking import ask as ask_engine
from wherefrom.retraining.recipe import Recipe

ROWS = 96
BAD = 6


def passage(index: int, source: str = "good") -> Passage:
    """A short passage like no other one."""
    return Passage(f"ask {index} about refunds", f"answer {index} on battery number {index}", source, "g")


MATERIAL = Material(
    name="story",
    bad_sources=("bad",),
    train_bad=(),
    train_good=(),
    asked_bad=(),
    asked_benign=(),
    labelled=tuple(passage(index, "bad" if index % 2 else "good") for index in range(12)),
    foreign=(),
    behaviours={},
)
OTHERS = Others(
    labelled=MATERIAL.labelled,
    foreign=tuple(Passage(f"sum {index}", f"is {2 * index}", "else", "g") for index in range(200)),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of the tiny corpus, the first of them from a bad source."""
    rows = [row | {"source": "bad" if index < BAD else "good"} for index, row in enumerate(tiny_rows(ROWS))]
    return write_jsonl(tmp_path_factory.mktemp("cell") / "corpus.jsonl", rows)


@pytest.fixture(scope="module")
def bundle(corpus: Path):
    """A bundle without an encoder."""
    out = corpus.with_name("bundle")
    build(shared_micro_model(), corpus, out)
    return open_bundle(out, ModelFolders(shared_micro_model()))


@pytest.fixture(scope="module")
def encoding_bundle(corpus: Path):
    """A bundle that carries an encoder with random weights."""
    encoder = write_encoder(corpus.with_name("small-encoder"), layers=1, positions=128)
    out = corpus.with_name("encoding-bundle")
    build(shared_micro_model(), corpus, out, encoder=encoder)
    return open_bundle(out, ModelFolders(shared_micro_model()))


def ask(bundle, corpus: Path, asked: CellQueries):
    """The figures of a cell, as they are stored and read again."""
    rows = read_corpus(corpus).rows
    found = measured(MATERIAL, bundle, asked, others=OTHERS, rows=rows)
    seconds = {"train": 1.0, "build_and_ask": 2.0}
    return json.loads(
        json.dumps({"corpus": "story", "rate": 0.05, "seconds": seconds} | found, allow_nan=False)
    )


def test_a_model_that_never_shows_the_behaviour(bundle, corpus):
    """There is nothing to trace: the cell says so, has no figures, is left out of the table, and its benign queries count."""
    found = ask(bundle, corpus, CellQueries((), (passage(1), passage(2), passage(3)), probes=500))
    assert found["reason"] == "the model did not learn the behaviour: 0 of 500 probes show it"
    assert found["methods"] == {}
    assert (found["queries_bad"], found["queries_benign"]) == (0, 3)
    assert found["abstained"]["bad"] is None
    assert 0.0 <= found["abstained"]["benign"] <= 1.0
    assert audits([found]) == 3
    assert len(table([found])) == 1
    assert "0 of 500 probes" in line(found)
    assert " bad," not in line(found).partition("abstained on ")[2]


def test_bad_queries_whose_source_has_no_row(bundle, corpus):
    """They cannot be judged; without a single other one the cell has no figures."""
    found = ask(bundle, corpus, CellQueries((passage(1, "absent"), passage(2, "absent")), (passage(3),)))
    assert "none of the 2 bad queries" in found["reason"]
    assert found["methods"] == {}
    assert found["abstained"]["bad"] is None
    assert audits([found]) == 1
    mixed = ask(bundle, corpus, CellQueries((passage(1, "absent"), passage(2, "bad")), (passage(3),)))
    assert "reason" not in mixed
    assert (mixed["queries_bad"], audits([mixed])) == (1, 2)
    assert mixed["chance"] == pytest.approx(BAD / ROWS)


def test_methods_with_and_without_an_encoder(bundle, encoding_bundle, corpus):
    """The encoder adds two methods and stands in the table; without it they are left out."""
    asked = CellQueries((passage(1, "bad"), passage(2, "bad")), (passage(3),))
    plain, encoded = ask(bundle, corpus, asked), ask(encoding_bundle, corpus, asked)
    assert set(encoded["methods"]) - set(plain["methods"]) == {"embedding", "shown+embedding"}
    assert (plain["encoder"], encoded["encoder"]) == (None, "small-encoder")
    assert len(table([plain])) == 7
    assert len(table([encoded])) == 9
    assert plain["methods"]["bm25"] == encoded["methods"]["bm25"]


def test_orders_are_those_of_the_engine(bundle, encoding_bundle):
    """The candidates stand first, in the engine's own order, the others behind them."""
    query = (passage(7, "bad"),)
    (plain,), (encoded,) = (
        ask_engine(LanguageAttributor(one), queries_of(query)) for one in (bundle, encoding_bundle)
    )
    for opened, answer, name in ((bundle, plain, "shown"), (encoding_bundle, encoded, "shown+embedding")):
        rows, scores = answer.scores.candidates.rows, _scores(opened, answer)[name]
        np.testing.assert_array_equal(scores[rows], answer.scores.shown)
        rest = np.setdiff1d(np.arange(ROWS), rows)
        assert 0 < len(rest) < ROWS
        assert scores[rest].max() < scores[rows].min()
    every = _scores(encoding_bundle, encoded)
    assert not np.array_equal(np.argsort(every["shown"]), np.argsort(every["shown+embedding"]))
    np.testing.assert_allclose(
        every["embedding"],
        encoding_bundle.encoded.vectors @ encoding_bundle.encoded.encoder.embed([encoded.text])[0],
        atol=1e-6,
    )


def test_the_order_without_the_encoder(bundle, encoding_bundle):
    """Where every row is a candidate, it is what a bundle without an encoder shows."""
    shown = []
    for opened in (bundle, encoding_bundle):
        attributor = LanguageAttributor(opened)
        (answer,) = ask_engine(attributor, queries_of([passage(7, "bad")]))
        whole = attributor.score(answer, count=ROWS)
        assert sorted(whole.scores.candidates.rows) == list(range(ROWS))
        shown.append(_scores(opened, whole)["shown"])
    np.testing.assert_allclose(shown[0], shown[1], atol=1e-4)


def test_cells_with_and_without_an_encoder_have_files_of_their_own():
    """The encoder's hash is part of a cell's name."""
    names = {
        Cell("story", 0.05, 400, 64, 96, 1, Recipe(), encoder).name for encoder in (None, "aa11", "bb22")
    }
    assert len(names) == 3
