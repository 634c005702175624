"""Files of exports: every format says the same, a long one is never held, a ZIP has its manifest behind it."""

import csv
import hashlib
import io
import json
import tracemalloc
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType

import pyarrow.parquet
import pytest

from wherefrom import export_files
from wherefrom.errors import FormatUnavailable
from wherefrom.export_files import Tally, check_format, file_name, pieces_of, zipped
from wherefrom.export_rows import COLUMNS, FLOATS, INTEGERS, TRUTHS, Row
from wherefrom.records import ExportFormat, ExportManifest, ExportRows

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
KIND = ExportRows.EXAMPLES


def row(number: int, text: str = "We refund it.") -> Row:
    """One training example."""
    empty: Row = dict.fromkeys(COLUMNS[KIND])
    return empty | {"training_example_id": number, "source": "forum", "strength": 0.5, "completion": text}


def manifest_of(tally: Tally, name: str) -> ExportManifest:
    """What a manifest says of what went through."""
    return ExportManifest(
        file=name,
        rows=KIND,
        format=ExportFormat.CSV,
        num_rows=tally.num_rows,
        sha256=tally.digest.hexdigest(),
        size_bytes=tally.size_bytes,
        filter={},
        bundles=(),
        begun_at=NOW,
        finished_at=NOW,
        exported_by="ann",
        version="1",
    )


HOSTILE = ("=cmd|' /C calc'!A0", "a\u2028b\nc\x85d", '"quoted", <script>', "\t+1", "\u202eevil", "=1+1;=2")


def test_all_formats_hold_the_same_rows() -> None:
    """Texts stand in JSONL and Parquet as they are, also with what other readers take for an end of a line; CSV disarms formulas."""
    rows = [row(number, text) for number, text in enumerate(HOSTILE)]
    made = {form: b"".join(pieces_of(iter(rows), KIND, form)) for form in ExportFormat}
    lines = made[ExportFormat.JSONL].removesuffix(b"\n").split(b"\n")
    assert [json.loads(one)["completion"] for one in lines] == list(HOSTILE)
    table = pyarrow.parquet.read_table(io.BytesIO(made[ExportFormat.PARQUET]))
    assert table["completion"].to_pylist() == list(HOSTILE)
    assert str(table.schema.field("strength").type) == "double"
    assert str(table.schema.field("training_example_id").type) == "int64"
    cells = list(csv.DictReader(io.StringIO(made[ExportFormat.CSV].decode(), newline="")))
    assert [one["training_example_id"] for one in cells] == [str(number) for number in range(len(HOSTILE))]
    assert all(not one["completion"].startswith(("=", "+", "\t", "@", "-")) for one in cells)
    assert cells[0]["completion"] == "'" + HOSTILE[0]


@pytest.mark.parametrize("form", ExportFormat)
def test_a_long_export_is_never_held(form: ExportFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are made and dropped while the file is sent: five times as many rows take the same memory."""
    monkeypatch.setattr(export_files, "GROUP_CHARS", 200_000)
    text = "x" * 1_000

    def peak_of(number: int) -> int:
        tally = Tally()
        rows: Iterator[Row] = (row(one, text + str(one)) for one in range(number))
        pieces = tally.hashed(pieces_of(tally.counted(rows), KIND, form))
        tracemalloc.start()
        for _ in zipped("a.csv", pieces, lambda: manifest_of(tally, "a.csv")):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert tally.num_rows == number
        return peak

    few = peak_of(600)
    assert peak_of(3_000) < 1.3 * few + 300_000, "the rows of an export are held in memory"


def test_nothing_is_read_ahead() -> None:
    """Whoever takes the first piece has caused one row to be read, so that a page of a database is read when it is needed."""
    taken: list[int] = []

    def rows() -> Iterator[Row]:
        for number in range(100):
            taken.append(number)
            yield row(number)

    pieces = pieces_of(rows(), KIND, ExportFormat.JSONL)
    assert (next(pieces), taken) == (next(pieces_of([row(0)], KIND, ExportFormat.JSONL)), [0])


def test_a_zip_has_the_file_and_then_its_manifest() -> None:
    """The manifest is asked for when the file is whole, and its hash is that of the file."""
    tally = Tally()
    name = file_name(KIND, ExportFormat.CSV, NOW)
    pieces = tally.hashed(pieces_of(tally.counted([row(1), row(2)]), KIND, ExportFormat.CSV))
    whole = b"".join(zipped(name, pieces, lambda: manifest_of(tally, name)))
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["wherefrom-examples-20260131T120000Z.csv", "manifest.json"]
        told = ExportManifest.model_validate_json(archive.read("manifest.json"))
        data = archive.read(told.file)
    assert (told.num_rows, told.size_bytes) == (2, len(data))
    assert told.sha256 == hashlib.sha256(data).hexdigest()


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read; the other formats need nothing."""

    def refuse(name: str) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("wherefrom.export_files.importlib.import_module", refuse)
    with pytest.raises(FormatUnavailable, match=r'pip install "wherefrom\[parquet\]"'):
        check_format(ExportFormat.PARQUET)
    check_format(ExportFormat.CSV)
    check_format(ExportFormat.JSONL)


def test_every_column_has_one_kind() -> None:
    """A column that is in two lists, or in none of the tables, would be written as something else than it is."""
    everywhere = {name for columns in COLUMNS.values() for name in columns}
    kinds = (INTEGERS, FLOATS, TRUTHS)
    assert all(one <= everywhere for one in kinds)
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
