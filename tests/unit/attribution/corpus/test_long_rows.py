"""A row without end: the error names file, line, limit and what to do, and the line is never in memory whole."""

import csv
import gzip
import json
from pathlib import Path

import pytest

from wherefrom.attribution.corpus import packed, read_corpus, reading, tables
from wherefrom.errors import InvalidRecord

GOOD = json.dumps({"prompt": "p", "completion": "c"}).encode()
LIMIT = 100


def long_row(size: int = 5 * LIMIT) -> bytes:
    """A row of which the completion alone has this length."""
    return json.dumps({"prompt": "p", "completion": "c" * size}).encode()


@pytest.fixture(autouse=True)
def _short_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_LINE_BYTES", LIMIT)
    monkeypatch.setattr(packed, "_SKIPPED_BYTES", 16)


@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson", "c.jsonl.gz"])
@pytest.mark.parametrize("line", [1, 2, 3])
def test_a_line_that_is_too_long_is_named_with_its_limit(tmp_path: Path, name: str, line: int) -> None:
    """Wherever it is, the first and the last included; left out on demand, with the others read."""
    lines = [GOOD] * 2
    lines.insert(line - 1, long_row())
    content = b"\n".join(lines)
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(
        InvalidRecord, match=rf"line {line}: the line is longer than {LIMIT} bytes; write one row"
    ):
        read_corpus(file)
    corpus = read_corpus(file, skip_bad=True)
    assert (len(corpus.rows), corpus.skipped) == (2, 1)


def test_no_more_of_a_line_than_the_limit_is_held(tmp_path: Path) -> None:
    """Its beginning says that it is cut; the next line begins where it should."""
    file = tmp_path / "c.jsonl"
    file.write_bytes(long_row() + b"\n" + b"x" * LIMIT + b"\n" + b"last")
    with packed.opened(file) as content:
        lines = list(packed.lines_of(content))
    assert [len(line) for line in lines] == [LIMIT + 1, LIMIT + 1, 4]
    assert [packed.is_cut(line) for line in lines] == [True, False, False]


@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_an_array_may_be_longer_than_a_line(tmp_path: Path, name: str) -> None:
    """Many rows on one line are many rows."""
    file = tmp_path / name
    file.write_bytes(b"[" + b",".join([GOOD] * 20) + b"]")
    assert len(read_corpus(file).rows) == 20


def test_texts_that_are_too_long_are_refused_in_every_kind_of_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item of an array and a cell of a table have no line of their own that could be too long."""
    monkeypatch.setattr(reading, "MAX_TEXT_CHARS", 50)
    monkeypatch.setattr(tables, "MAX_TEXT_CHARS", 50)
    array, table = tmp_path / "c.json", tmp_path / "c.csv"
    array.write_bytes(b"[" + GOOD + b"," + long_row(60) + b"]")
    table.write_text("prompt,completion\np,c\np," + "c" * 60 + "\n")
    with pytest.raises(
        InvalidRecord, match="item 2: the row's texts have 61 characters; at most 50 are read"
    ):
        read_corpus(array)
    usual = csv.field_size_limit()
    with pytest.raises(InvalidRecord, match="line 2: malformed table: field larger than field limit"):
        read_corpus(table)
    assert csv.field_size_limit() == usual  # it holds for the whole process
