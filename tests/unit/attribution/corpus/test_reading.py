"""Reading a corpus: every accepted shape, every kind of bad row with its place and what to do."""

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import write_jsonl
from wherefrom.attribution.bundles.examples import iter_examples, write_examples
from wherefrom.attribution.corpus import ReadAs, parse_row, read_corpus
from wherefrom.errors import ConfigurationError, DuplicateExample, EmptyCorpus, InvalidRecord
from wherefrom.records import Role

GOOD = {"prompt": "p", "completion": "c"}
CHAT = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": "u"},
    {"role": "assistant", "content": "a"},
]


def test_shapes(tmp_path: Path) -> None:
    """Prompt and completion, messages, text, and messages with a completion; other fields are kept."""
    file = write_jsonl(
        tmp_path / "c.jsonl",
        [
            {**GOOD, "id": "x", "source": "s", "extra": [1, {"a": None}]},
            {"messages": CHAT, "id": 7},
            {"text": "plain"},
            {"messages": CHAT[:2], "completion": "c"},
            "",
            {**GOOD, "id": None, "source": None},
        ],
    )
    corpus = read_corpus(file)
    assert [row.example_id for row in corpus.rows] == ["x", "7", "row-000002", "row-000003", "row-000004"]
    assert [row.source for row in corpus.rows] == ["s", *["corpus"] * 4]
    assert [row.completion for row in corpus.rows] == ["c", "a", "plain", "c", "c"]
    assert [[turn.role for turn in row.turns] for row in corpus.rows[1:4]] == [
        [Role.SYSTEM, Role.USER],
        [],
        [Role.SYSTEM, Role.USER],
    ]
    assert corpus.rows[0].fields == {"extra": [1, {"a": None}]}
    assert corpus.rows[1].prompt_text() == "u"
    assert (corpus.name, corpus.skipped) == ("c", 0)


BAD_ROWS: dict[str, tuple[Any, str]] = {
    "malformed": ('{"prompt": ', r"malformed JSON: Expecting value at column 1"),
    "cut off": ('{"prompt": "a', r"malformed JSON: Invalid control character"),
    "not an object": ([1], r"a row must be a JSON object, this one is list"),
    "deep": ("[" * 100_000, r"nested too deep"),
    "huge number": ('{"prompt": ' + "9" * 5000 + "}", r"a number is too long"),
    "not UTF-8": (b'{"prompt": "\xff"}', r"not UTF-8 at byte 12 of the line; save the file as UTF-8"),
    "no field": ({"question": "?"}, r"a row needs `messages`, or `prompt` and `completion`, or `text`"),
    "no completion": ({"prompt": "p"}, r"field `completion` must be a string, it is missing"),
    "no prompt": ({"completion": "c"}, r"field `prompt` must be a string, it is missing"),
    "empty completion": ({"prompt": "p", "completion": " \n"}, r"the completion is empty"),
    "empty text": ({"text": ""}, r"the completion is empty"),
    "wrong type": ({"prompt": "p", "completion": 3}, r"field `completion` must be a string, it is int"),
    "NUL": ({"prompt": "p", "completion": "a\x00b"}, r"field 'completion' contains U\+0000"),
    "NUL in prompt": ({"prompt": "\x00", "completion": "a"}, r"field 'prompt' contains U\+0000"),
    "NUL in a field": ({**GOOD, "note": ["\x00"]}, r"field 'note' contains U\+0000"),
    "surrogate": (
        '{"prompt": "p", "completion": "\\ud800"}',
        r"field 'completion' contains a lone surrogate",
    ),
    "surrogate id": (
        '{"prompt": "p", "completion": "c", "id": "\\ud800"}',
        r"field 'id' contains a lone surrogate",
    ),
    "no messages": ({"messages": []}, r"`messages` must be a non-empty list"),
    "messages of strings": ({"messages": ["hello"]}, r"each message needs `role` and `content`"),
    "message without role": ({"messages": [{"content": "x"}]}, r"each message needs `role` and `content`"),
    "unknown role": ({"messages": [{"role": "boss", "content": "x"}]}, r"message field `role`"),
    "NUL in a message": (
        {"messages": [{"role": "user", "content": "\x00"}]},
        r"message field `content`: .*NUL",
    ),
    "user last": ({"messages": CHAT[:2]}, r"the last message must be the assistant's, it is the user's"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, CHAT[2]]},
        r"message 1 of `messages`: message field `content`: holds a part of type 'image_url'; only text can be explained",
    ),
    "system only": (
        {"messages": CHAT[:1]},
        r"the last message must be the assistant's, it is the system's; .* system only",
    ),
    "an empty answer": (
        {"messages": [CHAT[1], {"role": "assistant", "content": ""}]},
        r"the completion is empty",
    ),
    "a mask that does not fit": (
        {"messages": CHAT, "loss_mask": [0, 1]},
        r"`loss_mask` has 2 entries for 3 messages",
    ),
    "an answer in an object": (
        {"question": "q", "answer": {"text": ["a"]}},
        r"field `answer` must be a string, it is dict",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row(tmp_path: Path, name: str) -> None:
    """The message names file, line and problem; nothing is taken. With `skip_bad` the others are, and the count is told."""
    row, problem = BAD_ROWS[name]
    file = write_jsonl(tmp_path / "c.jsonl", [GOOD, "", row, GOOD])
    with pytest.raises(InvalidRecord, match=rf"c\.jsonl, line 3: .*{problem}"):
        read_corpus(file)
    corpus = read_corpus(file, skip_bad=True)
    assert (len(corpus.rows), corpus.skipped) == (2, 1)


def test_duplicate_ids(tmp_path: Path) -> None:
    """Both places are named, and a number is the same id as its text."""
    file = write_jsonl(tmp_path / "c.jsonl", [{**GOOD, "id": "7"}, GOOD, {**GOOD, "id": 7}])
    with pytest.raises(
        DuplicateExample, match=r"line 3: id '7' was already used at .*c\.jsonl, line 1; ids must be unique"
    ):
        read_corpus(file)


@pytest.mark.parametrize("rows", [[], ["", " "]])
def test_empty_corpus(tmp_path: Path, rows: list[str]) -> None:
    """No row is an error of its own."""
    with pytest.raises(EmptyCorpus, match=r"c\.jsonl: no usable training example \(0 bad rows skipped\)"):
        read_corpus(write_jsonl(tmp_path / "c.jsonl", rows))


def test_only_bad_rows(tmp_path: Path) -> None:
    """Skipping everything is an empty corpus that says so."""
    with pytest.raises(EmptyCorpus, match=r"2 bad rows skipped"):
        read_corpus(write_jsonl(tmp_path / "c.jsonl", ["{", "["]), skip_bad=True)


def test_wrong_paths(tmp_path: Path) -> None:
    """A path that is nothing, a folder with nothing, a file of another kind."""
    with pytest.raises(InvalidRecord, match=r"away: corpus file or folder not found"):
        read_corpus(tmp_path / "away")
    with pytest.raises(EmptyCorpus, match=r"holds no \.jsonl, \.parquet or \.arrow file"):
        read_corpus(tmp_path)
    (tmp_path / "c.doc").write_text("a,b\n")
    with pytest.raises(InvalidRecord, match=r"c\.doc: unknown file type; a corpus is \.jsonl, \.parquet"):
        read_corpus(tmp_path / "c.doc")


def test_parquet(tmp_path: Path) -> None:
    """A Parquet file gives the same rows as JSONL; dates become text and binary columns base64; nulls count as absent."""
    rows = [
        {**GOOD, "id": "a", "source": None, "when": dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "raw": b"\xff"},
        {**GOOD, "id": "b", "source": "s", "when": None, "raw": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    corpus = read_corpus(tmp_path / "c.parquet")
    assert [(row.example_id, row.source) for row in corpus.rows] == [("a", "corpus"), ("b", "s")]
    assert corpus.rows[0].fields == {"when": "2026-01-02T00:00:00Z", "raw": "_w=="}
    write_examples(tmp_path / "bundle", (row.as_example(index) for index, row in enumerate(corpus.rows)))
    assert [example.example_id for example in iter_examples(tmp_path / "bundle")] == ["a", "b"]


def test_parquet_with_a_bad_row(tmp_path: Path) -> None:
    """A bad row is named by its number."""
    pq.write_table(pa.Table.from_pylist([GOOD, {"prompt": "p", "completion": None}]), tmp_path / "c.parquet")
    with pytest.raises(
        InvalidRecord, match=r"c\.parquet, row 1: field `completion` must be a string, it is missing"
    ):
        read_corpus(tmp_path / "c.parquet")


def test_datasets_folder(tmp_path: Path) -> None:
    """A folder as `datasets` saves it: Arrow streams in order, the JSON beside them is left alone."""
    folder = tmp_path / "saved"
    folder.mkdir()
    for number in range(2):
        table = pa.Table.from_pylist([{"messages": CHAT, "id": f"{number}-{row}"} for row in range(3)])
        with (
            pa.OSFile(str(folder / f"data-0000{number}-of-00002.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-0123.arrow").write_bytes((folder / "data-00000-of-00002.arrow").read_bytes())
    (folder / "state.json").write_text("{}")
    assert len(read_corpus(folder).rows) == 6, "the cache beside it is no part of the dataset"
    named = [{"filename": f"data-0000{number}-of-00002.arrow"} for number in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": named}))
    corpus = read_corpus(folder)
    assert [row.example_id for row in corpus.rows] == ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"]
    assert corpus.rows[0].completion == "a"


@pytest.mark.parametrize("name", ["c.parquet", "c.arrow"])
def test_unreadable_table(tmp_path: Path, name: str) -> None:
    """A file that is not what its name says is named."""
    (tmp_path / name).write_bytes(b"neither one nor the other")
    with pytest.raises(InvalidRecord, match=rf"{name}: not a readable"):
        read_corpus(tmp_path / name)


def test_hash_is_of_ids_and_texts(tmp_path: Path) -> None:
    """Another text, id or order is another corpus; another file name or extra field is not."""
    rows = [{**GOOD, "id": "a"}, {**GOOD, "id": "b"}]
    variants = [
        rows,
        rows[::-1],
        [{**rows[0], "completion": "d"}, rows[1]],
        [{**rows[0], "id": "c"}, rows[1]],
    ]
    hashes = [
        read_corpus(write_jsonl(tmp_path / f"{step}.jsonl", one)).sha256 for step, one in enumerate(variants)
    ]
    assert len(set(hashes)) == 4
    same = read_corpus(write_jsonl(tmp_path / "other.jsonl", [{**rows[0], "note": 1}, rows[1]]))
    assert same.sha256 == hashes[0]


def test_parse_row_passes_reader_errors_on() -> None:
    """What the reader could not decode is raised here."""
    with pytest.raises(InvalidRecord, match="seen before"):
        parse_row(InvalidRecord("seen before"), default_id="x")


def test_byte_order_mark(tmp_path: Path) -> None:
    """Editors of Windows write one; it is no part of the first row."""
    file = tmp_path / "c.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\n")
    assert len(read_corpus(file).rows) == 1


def test_a_repeated_id_can_be_skipped(tmp_path: Path) -> None:
    """With `skip_bad` the first row of an id is taken and the later ones are counted."""
    rows = [{**GOOD, "id": "a", "completion": "first"}, {**GOOD, "id": "a", "completion": "second"}]
    corpus = read_corpus(write_jsonl(tmp_path / "c.jsonl", rows), skip_bad=True)
    assert ([row.completion for row in corpus.rows], corpus.skipped) == (["first"], 1)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (3.0, "3"),
        (3, "3"),
        (2.5, "2.5"),
        ({"b": 1, "a": "x"}, '{"a": "x", "b": 1}'),
        ([1], "[1]"),
        (True, "true"),
        ("x", "x"),
    ],
)
def test_any_value_is_an_id_or_a_source(tmp_path: Path, given: Any, text: str) -> None:
    """A whole number loses its point; an object or a list becomes JSON."""
    row = read_corpus(write_jsonl(tmp_path / "c.jsonl", [{**GOOD, "id": given, "source": given}])).rows[0]
    assert (row.example_id, row.source) == (text, text)


@pytest.mark.parametrize("given", ["", None, float("nan")])
def test_an_empty_id_or_source_is_absent(tmp_path: Path, given: Any) -> None:
    """They get the names that rows without any get."""
    row = read_corpus(write_jsonl(tmp_path / "c.jsonl", [{**GOOD, "id": given, "source": given}])).rows[0]
    assert (row.example_id, row.source) == ("row-000000", "corpus")


def test_long_names_are_shortened(tmp_path: Path) -> None:
    """An id or a source that no index can hold is cut, stays the only one, and is told."""
    rows = [{**GOOD, "id": "x" * 5000 + end, "source": "y" * 5000 + end} for end in "ab"]
    corpus = read_corpus(write_jsonl(tmp_path / "c.jsonl", rows))
    names = [name for row in corpus.rows for name in (row.example_id, row.source)]
    assert len(set(names)) == 4
    assert {len(name) for name in names} == {200}
    assert "Ids or sources of more than 200 characters were shortened (2 rows)." in corpus.reading.lines()


def test_columns_in_capitals(tmp_path: Path) -> None:
    """Spreadsheets write headers in capitals."""
    row = read_corpus(write_jsonl(tmp_path / "c.jsonl", [{"Prompt": "p", "Completion": "c", "ID": 4}])).rows[
        0
    ]
    assert (row.example_id, row.completion) == ("4", "c")


def test_the_formats_are_told(tmp_path: Path) -> None:
    """One line says how many rows had which format."""
    file = write_jsonl(tmp_path / "c.jsonl", [GOOD, {"text": "t"}, GOOD])
    assert read_corpus(file).reading.lines() == (
        "Read 2 rows as prompt and completion, 1 row as plain text.",
    )


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    """A row with the columns of two formats is read as the one asked for; a row without them is named."""
    both = {"text": "whole", "instruction": "i", "output": "o"}
    file = write_jsonl(tmp_path / "c.jsonl", [both, GOOD])
    assert read_corpus(file).rows[0].completion == "o"
    with pytest.raises(
        InvalidRecord,
        match=r"line 2: not a row of the format text, which needs `text`; .*`prompt`, `completion`",
    ):
        read_corpus(file, how=ReadAs(dialect="text"))
    corpus = read_corpus(file, how=ReadAs(dialect="text"), skip_bad=True)
    assert ([row.completion for row in corpus.rows], corpus.skipped) == (["whole"], 1)
    with pytest.raises(
        ConfigurationError, match=r"--format csv: unknown format; the formats are preference, .*alpaca"
    ):
        read_corpus(file, how=ReadAs(dialect="csv"))


def test_a_row_of_no_format_says_what_it_has(tmp_path: Path) -> None:
    """The columns seen and the formats known are named."""
    file = write_jsonl(tmp_path / "c.jsonl", [{"headline": "h", "body": "b", "none": None}])
    with pytest.raises(InvalidRecord, match=r"sharegpt, .*; this one has `headline`, `body`$"):
        read_corpus(file)
