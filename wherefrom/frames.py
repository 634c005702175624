"""Records as tables of pandas, which is an extra: lists and streams that know `to_pandas`. No HTTP, no engine."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel

from wherefrom.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T", bound=BaseModel | Mapping[str, Any])


class Records(tuple[T, ...]):
    """A list that was read as a whole."""

    __slots__ = ()

    def to_pandas(self) -> "pd.DataFrame":
        """A table with one row per item; see `to_pandas`."""
        return to_pandas(self)


class Stream(Iterator[T], Generic[T]):
    """A list that is fetched while it is read; it can be read once."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)

    def __next__(self) -> T:
        return next(self._items)

    def to_pandas(self) -> "pd.DataFrame":
        """A table with one row per item that was not read yet; see `to_pandas`."""
        return to_pandas(self)


def to_pandas(records: Iterable[BaseModel | Mapping[str, Any]]) -> "pd.DataFrame":
    """A table with one row per record and one column per field. Fields of a field stand under both names, such as ``audit.state``; enums are their values.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    return table([_flat(one if isinstance(one, Mapping) else _fields(one)) for one in records])


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> "pd.DataFrame":
    """Rows as a table.

    Raises:
        ConfigurationError: pandas is not installed.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - optional extra
    except ModuleNotFoundError as error:
        raise ConfigurationError('to_pandas needs pandas: pip install "wherefrom[pandas]"') from error
    return pd.DataFrame.from_records(list(rows), columns=None if columns is None else list(columns))


def _fields(record: BaseModel) -> dict[str, Any]:
    return {name: getattr(record, name) for name in type(record).model_fields}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """One row: records inside it take columns of their own; objects and lists stay one cell."""
    row: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, BaseModel):
            row |= _flat(_fields(value), f"{before}{name}.")
        else:
            row[before + name] = value.value if isinstance(value, Enum) else value
    return row
