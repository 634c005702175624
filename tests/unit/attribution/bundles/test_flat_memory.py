"""A build holds a part of its corpus at a time: its peak does not grow with the rows."""

import gc
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.tiny import build, shared_micro_model, tiny_rows, write_jsonl
from wherefrom.attribution import factors, groups
from wherefrom.attribution.bundles import build as building
from wherefrom.attribution.bundles import examples, features, rendering, shards, tokens
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Signals
from wherefrom.attribution.retrieval import index, lexical, word_scores

#: Bytes of memory that a further row may take. Some 100 are taken by lengths and norms; a row that is held takes thousands, as text or as tokens.
MOST_BYTES = 400
#: Words of a completion, and words that there are: the vocabulary is held.
WORDS, VOCABULARY = 60, 50


class StubReader:
    """Signals of a few numbers, without a pass through the model."""

    split_pass = False
    device = torch.device("cpu")

    def reads(self, row: TokenRow) -> tuple[bool, ...]:
        """The explained ones."""
        return row.explained

    def read(self, rows: Sequence[TokenRow]) -> Signals:
        """Numbers that depend on the rows' tokens."""
        lengths = tuple(row.explained_tokens for row in rows)
        generator = torch.Generator().manual_seed(sum(rows[0].ids))
        a = torch.randn(sum(lengths), 1, 4, generator=generator)
        pooled = torch.randn(len(rows), 4, generator=generator)
        return Signals(a, a.flip(-1), lengths, pooled, torch.ones(len(rows)))


def corpus_of(folder: Path, rows: int) -> Path:
    """Rows of drawn words."""
    draw = random.Random(1)
    words = sorted({word for row in tiny_rows() for word in row["messages"][1]["content"].split()})[
        :VOCABULARY
    ]
    drawn = [
        {name: " ".join(draw.choices(words, k=size)) for name, size in (("prompt", 9), ("completion", WORDS))}
        for _ in range(rows)
    ]
    return write_jsonl(folder / f"{rows}.jsonl", drawn)


def peak(folder: Path, rows: int) -> int:
    """The most that a build of so many rows has allocated at once, bytes."""
    folder.mkdir(exist_ok=True)
    corpus = corpus_of(folder, rows)
    as_before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(700)  # as `wherefrom build` has it: each opened array leaves a little garbage
    tracemalloc.start()
    try:
        build(shared_micro_model(), corpus, folder / str(rows))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*as_before)


def test_rows_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 rows and of 300 the peak is about the same, where parts are small."""
    monkeypatch.setattr(building, "reader_of", lambda *_args, **_options: StubReader())
    for module in (examples, rendering, tokens):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 16)
    for module, name in (
        (features, "_ROWS"),
        (groups, "_ROWS"),
        (index, "CHUNK_ROWS"),
        (lexical, "_TEXTS"),
        (shards, "SHARD_ROWS"),
    ):
        monkeypatch.setattr(module, name, 16)
    monkeypatch.setattr(factors, "_COPIED", 4096)
    monkeypatch.setattr(word_scores, "MERGED_ENTRIES", 512)
    build(shared_micro_model(), corpus_of(tmp_path, 8), tmp_path / "8")  # what is loaded once
    # threads that earlier tests have left are counted too; they only add
    few, many = (min(peak(tmp_path / str(again), rows) for again in range(2)) for rows in (100, 300))
    assert (many - few) / 200 < MOST_BYTES, f"{few:,} and {many:,} bytes at once"
