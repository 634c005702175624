"""Bad content in an earlier answer: cited where all trained turns are explained, missed where the last one alone is."""

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import TINY_MODEL, build, tiny_queries, tiny_rows, write_jsonl
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import Manifest, read_card
from wherefrom.attribution.bundles.reading import read_as
from wherefrom.attribution.corpus import ReadAs, Turns, read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.rows import render_row
from wherefrom.attribution.offline import attribute_all
from wherefrom.records import Attribution, Query, Turn

ROWS, QUERIES = 80, 4
POLITE = [{"role": "user", "content": "Thank you."}, {"role": "assistant", "content": "You are welcome."}]


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Where the bundles of this file lie; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="wherefrom-turns-")


@functools.cache
def bundle(turns: Turns) -> Bundle:
    """A bundle of the tiny model whose training examples all end in the same polite answer."""
    home = Path(folder().name)
    rows = [{**row, "messages": [*row["messages"], *POLITE]} for row in tiny_rows(ROWS)]
    corpus = write_jsonl(home / "corpus.jsonl", rows)
    out = home / turns.value
    build(TINY_MODEL, corpus, out, form="forward", read=ReadAs(turns=turns))
    return open_bundle(out, ModelFolders(TINY_MODEL))


@functools.cache
def answers(turns: Turns) -> list[Attribution]:
    """Flagged outputs whose source is known, attributed."""
    attributor = LanguageAttributor(bundle(turns))
    queries = [
        Query(
            key=row["id"],
            turns=tuple(Turn.model_validate(one) for one in row["messages"]),
            completion=row["completion"],
        )
        for row in asked()
    ]
    prepared = [attributor.prepare(query, max_tokens=256, over_long="reject") for query in queries]
    return attribute_all(attributor, prepared, top_k=10, opponents=0, progress=lambda *_: None)


def asked() -> list[dict[str, Any]]:
    """Flagged outputs that come from a bad source."""
    return [row for row in tiny_queries() if row["true_source"].startswith("vendor")][:QUERIES]


def share(turns: Turns) -> float:
    """Mean share of the influence of the first ten citations that comes from the true source."""
    shares = []
    for row, answer in zip(asked(), answers(turns), strict=True):
        influence = [max(0.0, one.influence_score or 0.0) for one in answer.citations]
        true = [
            value
            for value, one in zip(influence, answer.citations, strict=True)
            if one.example.source == row["true_source"]
        ]
        shares.append(sum(true) / max(sum(influence), 1e-9))
    return float(np.mean(shares))


def test_the_true_source_is_cited() -> None:
    """With all trained turns the true source holds the influence of the first ten citations; the last turns alone say nothing about it."""
    assert share(Turns.ALL) > 0.8
    assert share(Turns.LAST) < 0.3


def test_evidence_points_into_the_earlier_answer() -> None:
    """Spans and common words of a citation lie in the shown conversation, the strongest of them in the answer that was bad."""
    inside = 0
    for answer in answers(Turns.ALL):
        best = answer.citations[0]
        bad = json.loads((Path(folder().name) / "corpus.jsonl").read_text().splitlines()[best.example.row])[
            "messages"
        ][1]["content"]
        assert best.example.completion == f"{bad}\n[user] Thank you.\n[assistant] You are welcome."
        assert all(one.example.end <= len(best.example.completion) for one in best.spans)
        inside += bool(best.spans) and best.spans[0].example.end <= len(bad)
    assert inside == len(answers(Turns.ALL))


def test_the_bundle_keeps_every_range() -> None:
    """Its tokens are those that were rendered, explained tokens and factors agree, and the manifest says how the corpus was read."""
    opened = bundle(Turns.ALL)
    rows = read_corpus(Path(folder().name) / "corpus.jsonl").rows[:3]
    expected = [render_row(opened.language.renderer, row, max_tokens=256, name="x") for row in rows]
    assert opened.tokens.read(range(3)) == [one.tokens for one in expected]
    assert [tuple(opened.shown.of(row)) for row in range(3)] == [one.ranges for one in expected]
    lengths = opened.store.lengths(np.arange(3))
    assert lengths.tolist() == [one.tokens.explained_tokens for one in expected]
    entry = opened.manifest.corpus
    assert entry.reading is not None
    assert (entry.reading.turns, entry.reading.explained_turns, entry.reading.left_out) == (
        "all",
        2 * ROWS,
        {},
    )
    covered = read_card(opened.path)["coverage"]
    assert (covered["assistant_turns"], covered["assistant_turns_explained"]) == ("all", 2 * ROWS)
    assert covered["formats"] == f"{ROWS} chat messages (OpenAI)"
    last = bundle(Turns.LAST).manifest.corpus
    assert last.reading is not None
    assert last.reading.left_out == {"earlier than the last (--turns last)": ROWS}
    assert last.completion_tokens < entry.completion_tokens < entry.tokens


def test_rows_of_one_answer_need_no_further_files() -> None:
    """A bundle keeps what several ranges need only where there are several."""
    names = {one.name for one in (bundle(Turns.LAST).path / "corpus").iterdir()}
    more = {one.name for one in (bundle(Turns.ALL).path / "corpus").iterdir()} - names
    assert more == {"token_explained.npy", "shown_ranges.npy", "shown_offsets.npy"}


def test_manifests_of_earlier_releases() -> None:
    """One that does not say how its corpus was read keeps its bytes and its name; its corpus is read again with the last turns alone."""
    manifest = bundle(Turns.LAST).manifest
    corpus = manifest.corpus.model_copy(update={"reading": None})
    old = manifest.model_copy(update={"corpus": corpus}).sealed()
    assert b"reading" not in old.to_bytes()
    again = Manifest.model_validate_json(old.to_bytes())
    assert (again.to_bytes(), again.content_name()) == (old.to_bytes(), old.name)
    assert read_as(again.corpus.reading) == ReadAs(turns=Turns.LAST)
    assert read_as(manifest.corpus.reading) == ReadAs(turns=Turns.LAST)
    assert read_as(bundle(Turns.ALL).manifest.corpus.reading) == ReadAs(turns=Turns.ALL)
