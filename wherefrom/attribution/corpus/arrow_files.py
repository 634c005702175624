"""Reads Parquet and Arrow files; every value of a row becomes one that JSON can hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_core import to_jsonable_python

from wherefrom.attribution.corpus.dialects import CONVERSATION_COLUMNS
from wherefrom.attribution.corpus.metadata import TOOL_COLUMNS
from wherefrom.errors import InvalidRecord

#: Columns whose objects lose their empty fields: a table gives every message the fields of all of them.
_NESTED = frozenset(
    {*CONVERSATION_COLUMNS, *TOOL_COLUMNS, "prompt", "completion", "chosen", "rejected", "documents"}
)
_ARROW_FILE = b"ARROW1"


def read_arrow(file: Path) -> Iterator[tuple[str, Any]]:
    """Rows of a Parquet file or an Arrow stream or file, each with its place.

    Raises:
        InvalidRecord: the file is not what its name says.
    """
    import pyarrow as pa  # noqa: PLC0415 - optional extra

    try:
        number = 0
        for batch in _batches(file):
            for content in _rows(batch):
                yield f"{file}, row {number}", content
                number += 1
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InvalidRecord(f"{file}: not a readable {file.suffix} file: {error}") from error


def _batches(file: Path) -> Iterator[Any]:
    import pyarrow as pa  # noqa: PLC0415 - optional extra
    import pyarrow.parquet as pq  # noqa: PLC0415 - optional extra

    if file.suffix.lower() == ".parquet":
        yield from pq.ParquetFile(file).iter_batches(batch_size=1024)
        return
    with file.open("rb") as content:
        is_file = content.read(len(_ARROW_FILE)) == _ARROW_FILE
    source = pa.memory_map(str(file))
    if not is_file:
        yield from pa.ipc.open_stream(source)
        return
    reader = pa.ipc.open_file(source)
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    names = batch.schema.names
    columns = [_values(column) for column in batch.columns]
    for values in zip(*columns, strict=True):
        row = {name: _for_json(value) for name, value in zip(names, values, strict=True)}
        yield {name: _without_nulls(value) if name in _NESTED else value for name, value in row.items()}


def _values(column: Any) -> list[Any]:
    """The values of a column; what Python has no type for (nanoseconds, years beyond 9999) as text."""
    if "[ns" in str(
        column.type
    ):  # where pandas is installed they become its types, which lose them on the way to JSON
        return [_value(one) for one in column]
    try:
        found: list[Any] = column.to_pylist()
    except (ValueError, OverflowError, ArithmeticError):
        return [_value(one) for one in column]
    return found


def _value(scalar: Any) -> Any:
    """One value; of a nested one, part by part."""
    import pyarrow as pa  # noqa: PLC0415 - optional extra

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.StructScalar):
        return {name: _value(scalar[name]) for name in scalar}
    if isinstance(scalar, pa.MapScalar):
        return [[_value(entry["key"]), _value(entry["value"])] for entry in scalar.values]
    if isinstance(scalar, pa.ListScalar):
        return [_value(one) for one in scalar.values]
    try:
        found = scalar.as_py()
    except (ValueError, OverflowError, ArithmeticError):
        return scalar.cast(pa.string()).as_py()
    has_nanoseconds = getattr(found, "nanosecond", 0) or getattr(found, "nanoseconds", 0)
    return scalar.cast(pa.string()).as_py() if has_nanoseconds else found


def _for_json(value: Any) -> Any:
    """Dates and numbers beyond JSON as text, binary values as base64."""
    return to_jsonable_python(value, bytes_mode="base64", fallback=str)


def _without_nulls(value: Any) -> Any:
    """A nested value without the fields that are null."""
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
