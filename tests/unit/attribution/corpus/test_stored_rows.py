"""Rows in a file are the rows: what a build reads back is what was read from the corpus."""

import math
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import tiny_rows, write_jsonl
from wherefrom.attribution.corpus import ReadAs, Turns, read_corpus, store_corpus
from wherefrom.attribution.corpus.stored_rows import store_rows
from wherefrom.errors import DuplicateExample, EmptyCorpus

CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": {"of": "ten \u2028 days"}}}
ODD: list[dict[str, Any]] = [
    {"prompt": "p", "completion": "c", "id": "plain", "score": 1e300, "big": 2**80, "none": None},
    {"text": "a text\nof two lines", "id": "text", "tags": [{"a": [1, 2.5, True]}, "é😀"]},
    {
        "id": "tools",
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {}}}],
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "u", "name": "Ann"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "found", "tool_call_id": "1"},
            {"role": "assistant", "content": "done", "reasoning_content": "because"},
        ],
    },
    {
        "id": "turns",
        "source": "mail",
        "messages": [
            {"role": role, "content": f"{role} {turn}"} for turn in range(3) for role in ("user", "assistant")
        ],
    },
]


@pytest.mark.parametrize("turns", list(Turns))
def test_rows_are_what_was_read(tmp_path: Path, turns: Turns) -> None:
    """Field for field and hash for hash, by place, in parts and one after the other; so is what is told of the corpus."""
    (tmp_path / "stored").mkdir()
    file, how = write_jsonl(tmp_path / "c.jsonl", [*ODD, *tiny_rows(5)]), ReadAs(turns=turns)
    expected, found = read_corpus(file, how=how), store_corpus(file, tmp_path / "stored", how=how)
    rows = found.rows
    assert list(rows) == list(expected.rows)
    assert [rows[place] for place in range(len(rows))] == list(expected.rows)
    assert rows[2:-1] == list(expected.rows)[2:-1]
    assert rows[-1] == expected.rows[-1]
    assert [one.text_sha256() for one in rows] == [one.text_sha256() for one in expected.rows]
    for name in ("name", "sha256", "skipped", "reading"):
        assert getattr(found, name) == getattr(expected, name)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    """Python's JSON reads NaN, so it is kept."""
    file = write_jsonl(tmp_path / "c.jsonl", ['{"prompt": "p", "completion": "c", "weight": NaN}'])
    row = store_rows(read_corpus(file).rows, tmp_path)[0]
    assert math.isnan(row.fields["weight"])


def test_bad_rows(tmp_path: Path) -> None:
    """Rows with an id that was used, or that cannot be read, are refused by name or left out and counted."""
    rows = [
        {"id": "a", "text": "one"},
        {"id": "b", "text": " "},
        {"id": "a", "text": "two"},
        {"text": "three"},
    ]
    file = write_jsonl(tmp_path / "c.jsonl", [rows[0], rows[2]])
    for name in ("first", "second", "third"):
        (tmp_path / name).mkdir()
    with pytest.raises(DuplicateExample, match=r"line 2: id 'a' was already used at .*line 1"):
        store_corpus(file, tmp_path / "first")
    found = store_corpus(write_jsonl(file, rows), tmp_path / "second", skip_bad=True)
    assert [one.example_id for one in found.rows] == ["a", "row-000003"]
    assert found.skipped == 2
    with pytest.raises(EmptyCorpus, match=r"no usable training example \(1 bad rows skipped\)"):
        store_corpus(write_jsonl(file, [rows[1]]), tmp_path / "third", skip_bad=True)
