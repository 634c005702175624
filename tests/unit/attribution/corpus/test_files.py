"""Which files are the corpus, and what is in them: splits, arrays, tables, compressed files, Arrow values of any kind."""

import bz2
import datetime as dt
import decimal
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import write_jsonl
from wherefrom.attribution.corpus import ReadAs, read_corpus, read_jsonl
from wherefrom.errors import ConfigurationError, InvalidRecord

GOOD = {"prompt": "p", "completion": "c"}


def split_files(folder: Path, *names: str) -> Path:
    """A folder with one row per file, whose completion is the file's name."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        row = {**GOOD, "completion": name}
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([row]), file)
        elif file.suffix == ".csv":
            file.write_text(f"prompt,completion\np,{name}\n")
        else:
            write_jsonl(file, [row])
    return folder


def read_names(path: Path, split: str | None = None) -> list[str]:
    """Names of the files that were read."""
    return [row.completion for row in read_corpus(path, how=ReadAs(split=split)).rows]


SHARD = "-00000-of-00001.parquet"
#: Files of a folder, and those that are read.
FOLDERS: dict[str, tuple[list[str], list[str]]] = {
    "hub": ([f"data/train{SHARD}", f"data/test{SHARD}", f"data/validation{SHARD}"], [f"data/train{SHARD}"]),
    "hub, shards": (
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", f"data/test{SHARD}"],
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
    ),
    "hub, a split of another name": (
        [f"data/train_sft{SHARD}", f"data/test_sft{SHARD}"],
        [f"data/train_sft{SHARD}"],
    ),
    "train beside another of that beginning": (
        [f"data/train{SHARD}", f"data/train_extra{SHARD}"],
        [f"data/train{SHARD}"],
    ),
    "train beside valid": (["train.jsonl", "valid.jsonl", "test.jsonl"], ["train.jsonl"]),
    "a name beside dev": (["chats.jsonl", "chats.dev.jsonl"], ["chats.jsonl"]),
    "folders": (["train/a.jsonl", "train/b.jsonl", "eval/a.jsonl"], ["train/a.jsonl", "train/b.jsonl"]),
    "no splits": (["b.jsonl", "a.jsonl"], ["a.jsonl", "b.jsonl"]),
    "only one": (["my-train-set.jsonl"], ["my-train-set.jsonl"]),
    "only a test": (["test.jsonl"], ["test.jsonl"]),
    "words that hold a split": (["latest.jsonl", "contest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
    "hidden and described": ([".cache/train.jsonl", "dataset_infos.json", "a.jsonl"], ["a.jsonl"]),
    "tables": (["train.csv", "test.csv"], ["train.csv"]),
    "rows before tables": (["a.jsonl", "a.csv"], ["a.jsonl"]),
    "json": (["train.json", "validation.json", "dataset_info.json"], ["train.json"]),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder(tmp_path: Path, name: str) -> None:
    """Only what was trained on is read; what was left alone is told."""
    files, wanted = FOLDERS[name]
    folder = split_files(tmp_path / "corpus", *files)
    assert read_names(folder) == wanted


def test_a_split_is_told(tmp_path: Path) -> None:
    """The line names the split, the number of files, and the splits that were left alone."""
    folder = split_files(tmp_path / "c", f"data/train{SHARD}", f"data/test{SHARD}", f"data/dev{SHARD}")
    lines = read_corpus(folder).reading.lines()
    assert (
        lines[1]
        == f"Read the split `train` of {folder} (1 file); left alone: `test` (1 file), `validation` (1 file)."
    )


def test_a_split_is_asked_for(tmp_path: Path) -> None:
    """By its name or one of the usual names for it; one that is not there is named with those that are."""
    folder = split_files(tmp_path / "c", "train.jsonl", "valid.jsonl")
    assert read_names(folder, "valid") == read_names(folder, "validation") == ["valid.jsonl"]
    with pytest.raises(
        ConfigurationError, match=r"--split test: .* does not have it; it has train, validation"
    ):
        read_names(folder, "test")
    with pytest.raises(ConfigurationError, match=r"--split train: .* is a single file"):
        read_names(folder / "train.jsonl", "train")


def test_several_splits_without_train(tmp_path: Path) -> None:
    """Nothing says which of them was trained on: one must be named."""
    folder = split_files(tmp_path / "c", "validation.jsonl", "test.jsonl")
    with pytest.raises(InvalidRecord, match=r"holds several splits \(test, validation\); name the split"):
        read_names(folder)


def saved(folder: Path, completion: str) -> None:
    """A dataset as `datasets` saves it."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist([{**GOOD, "completion": completion}])
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )


def test_a_saved_dataset_dict(tmp_path: Path) -> None:
    """Only its `train` is read, or the split asked for; without `train` one must be named."""
    (tmp_path / "dataset_dict.json").write_text("{}")
    for split in ("validation", "test"):
        saved(tmp_path / split, split)
    with pytest.raises(InvalidRecord, match=r"several splits \(test, validation\)"):
        read_names(tmp_path)
    saved(tmp_path / "train", "train")
    assert read_names(tmp_path) == ["train"]
    assert read_names(tmp_path, "test") == ["test"]
    assert "left alone: `test` (1 file), `validation` (1 file)." in read_corpus(tmp_path).reading.notes[0]


ROWS = [{**GOOD, "completion": str(number)} for number in range(3)]
#: File name and its content; each holds ROWS.
TEXTS: dict[str, tuple[str, bytes]] = {
    "array": ("c.json", json.dumps(ROWS).encode()),
    "array under another name": ("c.jsonl", json.dumps(ROWS, indent=2).encode()),
    "array, a trailing comma": (
        "c.json",
        ("[\n" + "".join(json.dumps(row) + ",\n" for row in ROWS) + "]\n").encode(),
    ),
    "array behind a mark": ("c.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    "object with data": ("c.json", json.dumps({"version": 1, "data": ROWS}).encode()),
    "columns": ("c.json", json.dumps({"prompt": ["p"] * 3, "completion": ["0", "1", "2"]}).encode()),
    "over several lines": ("c.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS).encode()),
    "commas behind lines": ("c.jsonl", "".join(json.dumps(row) + ",\n" for row in ROWS).encode()),
    "Windows": (
        "c.jsonl",
        b"\xef\xbb\xbf" + "\r\n\r\n".join(json.dumps(row) for row in ROWS).encode() + b"\r\n",
    ),
    "lines in .json": ("c.json", "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "ndjson": ("c.ndjson", "".join(json.dumps(row) + "\n" for row in ROWS).encode()),
    "csv": ("c.csv", b"prompt,completion,id\r\np,0,\r\np,1,\r\np,2,\r\n"),
    "csv behind a mark, semicolons": ("c.csv", b"\xef\xbb\xbfprompt;completion\np;0\np;1\np;2\n"),
    "csv in capitals": ("c.csv", b"Prompt,Completion\np,0\np,1\np,2\n"),
    "tsv": ("c.tsv", b"prompt\tcompletion\np\t0\np\t1\np\t2\n"),
}


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2", ".zst"])
@pytest.mark.parametrize("name", TEXTS)
def test_text_file(tmp_path: Path, name: str, packed: str) -> None:
    """Every way to write the rows gives the rows, compressed or not."""
    file, content = TEXTS[name]
    path = tmp_path / f"{file}{packed}"
    if packed == ".zst":
        with pa.output_stream(str(path), compression="zstd") as out:
            out.write(content)
    else:
        pack: Any = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[packed]
        path.write_bytes(pack(content))
    assert [row.completion for row in read_corpus(path).rows] == ["0", "1", "2"]


def test_cells_of_a_table(tmp_path: Path) -> None:
    """Quotes, line breaks, a list of messages as JSON; the place in an error is the row's last line."""
    messages = json.dumps(
        [{"role": "user", "content": "a, b\nc"}, {"role": "assistant", "content": 'say "d"'}]
    )
    quoted = messages.replace('"', '""')
    file = tmp_path / "c.csv"
    file.write_text(f'messages,weight,note\n"{quoted}",1,"two\nlines"\n"{quoted}",0,\n')
    corpus = read_corpus(file)
    assert [row.completion for row in corpus.rows] == ['say "d"']
    assert (corpus.rows[0].fields["note"], corpus.reading.untrained_rows) == ("two\nlines", 1)
    file.write_text('prompt,completion\n"p\nq",c\np,c,more\n')
    with pytest.raises(
        InvalidRecord, match=r"c\.csv, line 4: has more cells than the header has names \(2\)"
    ):
        read_corpus(file)
    assert len(read_corpus(file, skip_bad=True).rows) == 1


#: File name, content, and what the error says.
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "array with a fault": (
        "c.json",
        b'[\n{"text": "a"},\n{"text" "b"}\n]',
        r"a JSON array that is malformed at line 3, column 9",
    ),
    "array cut off": (
        "c.json",
        b'[\n{"text": "a"},\n{"text": "b"',
        r"a JSON array that is malformed at line 3",
    ),
    "UTF-16": ("c.jsonl", '{"text": "a"}\n'.encode("utf-16"), r"not UTF-8 but UTF-16"),
    "UTF-16 table": ("c.csv", "text\na\n".encode("utf-16"), r"not UTF-8 but UTF-16"),
    "Latin-1 table": ("c.csv", b"text\na\n\xe9\n", r"line 3: not UTF-8"),
    "open quote": ("c.csv", b'text\n"a\n', r"malformed table: unexpected end of data"),
    "no gzip": ("c.jsonl.gz", b'{"text": "a"}\n', r"cannot be unpacked: Not a gzipped file"),
    "gzip cut off": ("c.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 100)[:-12], r"cannot be unpacked"),
    "no bzip2": ("c.jsonl.bz2", b'{"text": "a"}\n', r"cannot be unpacked: Invalid data stream"),
    "no zstandard": ("c.jsonl.zst", b'{"text": "a"}\n', r"cannot be unpacked"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file(tmp_path: Path, name: str) -> None:
    """The fault is named with the file and, where there is one, its line."""
    file, content, problem = BROKEN[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InvalidRecord, match=rf"{file}.*{problem}"):
        read_corpus(tmp_path / file)


def test_one_object_is_one_row(tmp_path: Path) -> None:
    """A conversation alone in a file is no table."""
    file = tmp_path / "c.json"
    chat = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    file.write_text(json.dumps({"messages": chat}, indent=1))
    assert [content for _, content in read_jsonl(file)] == [{"messages": chat}]
    file.write_text(json.dumps({"conversations": chat}))
    assert len(read_corpus(file).rows) == 1


def test_any_value_of_an_extra_column(tmp_path: Path) -> None:
    """Nanoseconds, decimals, years beyond the calendar, nested and binary values become what JSON can hold; nothing stops the build."""
    columns: dict[str, Any] = {
        "prompt": ["p"],
        "completion": ["c"],
        "nano": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "zone": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns", tz="UTC")),
        "time": pa.array([123_456_789], pa.time64("ns")),
        "took": pa.array([123_456_789], pa.duration("ns")),
        "price": pa.array([decimal.Decimal("1.50")]),
        "far": pa.array([2**60], pa.timestamp("s")),
        "day": pa.array([dt.date(2026, 1, 2)]),
        "raw": pa.array([b"\xff"]),
        "nested": pa.array(
            [{"at": 5, "list": [7], "none": None}],
            pa.struct({"at": pa.timestamp("ns"), "list": pa.list_(pa.timestamp("ns")), "none": pa.string()}),
        ),
        "map": pa.array([[("k", 9)]], pa.map_(pa.string(), pa.timestamp("ns"))),
        "half": pa.array([1.5], pa.float32()),
        "kind": pa.array(["x"]).dictionary_encode(),
        "null": pa.array([None], pa.timestamp("ns")),
    }
    table = pa.table(columns)
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
        out.write_table(table)
    example = read_corpus(tmp_path / "c.arrow").rows[0].as_example(0)
    fields = json.loads(example.model_dump_json())["fields"]
    assert fields["nano"] == "2023-11-14 22:13:20.123456789"
    assert fields["zone"].startswith("2023-11-14 22:13:20.123456789")
    assert (fields["price"], fields["day"], fields["kind"], fields["null"]) == (
        "1.50",
        "2026-01-02",
        "x",
        None,
    )
    assert "1970-01-01 00:00:00.000000005" in fields["nested"]["at"]
    assert "000000009" in fields["map"][0][1]
    assert all(fields[name] is not None for name in ("time", "took", "far", "raw", "half"))


def test_messages_of_a_table_lose_their_empty_fields(tmp_path: Path) -> None:
    """A table gives every message the fields of all of them; templates must not see those that are null."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "q"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1}}}],
        },
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [{"function": {"name": "g", "arguments": {"y": 2}}}],
        },
    ]
    pq.write_table(
        pa.Table.from_pylist([{"messages": messages, "note": {"a": None}}]), tmp_path / "c.parquet"
    )
    row = read_corpus(tmp_path / "c.parquet").rows[0]
    assert row.turns[0].model_extra == {}
    assert row.turns[1].for_template() == {**messages[1], "content": ""}
    assert row.extras == {"tool_calls": messages[2]["tool_calls"]}
    assert row.fields == {"note": {"a": None}}
