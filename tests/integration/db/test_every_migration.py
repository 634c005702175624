"""Every migration, down and up, with a row in every table that there is at its time."""

from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Enum,
    Float,
    Integer,
    LargeBinary,
    Table,
    func,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.types import JSON

from db import migrate
from db.clock import UtcTimestamp
from db.models import ENGINE_OWN, Base
from db.session import Database, make_engine, parse_url
from wherefrom.records import utc_now

#: Where the kind of a column says too little.
_VALUES: dict[str, Any] = {
    "audit.state": "pending",
    "audit.lease_owner": None,
    "measurement.lease_owner": None,
    "group_measurement.lease_owner": None,
    "what_if.lease_owner": None,
    "build_part.lease_owner": None,
    "trail_event.sequence": None,
    "review.undoes_id": None,
    "flagged_output.channel": "cli",
    "flagged_output.members": None,
    "flagged_output.hypothetical_of": None,
}
#: Where the way down is looked at; every step of it runs.
_STRIDES = ("0026", "0020", "0014", "0008", "0001")
#: Written by the migrations themselves.
_OWN_ROWS = frozenset({"schema_release"})


#: By kind of column; the first that fits counts.
_KINDS: tuple[tuple[type[Any], Any], ...] = (
    (Boolean, True),
    (Integer, 1),
    (Float, 0.5),
    (LargeBinary, b"\x01"),
    (UtcTimestamp, utc_now()),
)


def _value(column: Column[Any]) -> Any:
    """A value that the column takes; an id is 1, and so is what refers to one."""
    key, kind = f"{column.table.name}.{column.name}", column.type
    if key in _VALUES:
        return _VALUES[key]
    if isinstance(kind, Enum):
        return next(iter(kind.enum_class or kind.enums))
    if isinstance(kind, JSON):
        return []
    plain = next((value for one, value in _KINDS if isinstance(kind, one)), None)
    return plain if plain is not None else "1" * min(getattr(kind, "length", None) or 8, 64)


def _tables(connection: Connection) -> dict[str, Table]:
    """Those of our tables that there are at this revision, in the order of their references."""
    there = set(inspect(connection).get_table_names())
    return {
        one.name: one
        for one in Base.metadata.sorted_tables
        if one.name in there and one.name not in _OWN_ROWS
    }


def _counts(connection: Connection) -> dict[str, int]:
    return {
        name: connection.execute(select(func.count()).select_from(text(name))).scalar_one()
        for name in _tables(connection)
    }


def _fill(connection: Connection) -> None:
    """A row in every table that has none, with all columns of this revision."""
    counts = _counts(connection)
    for name, table in _tables(connection).items():
        if counts[name]:
            continue
        known = {one["name"] for one in inspect(connection).get_columns(name)}
        row = {one.name: _value(one) for one in table.columns if one.name in known}
        connection.execute(insert(table).values(row))


def _revisions() -> list[str]:
    """From the first to the newest."""
    return sorted(path.name[:4] for path in (migrate.MIGRATIONS / "versions").glob("*.py"))


def test_every_migration_goes_down_and_up_with_a_row_in_every_table(own: Database, own_url: str) -> None:
    """No step fails on data or empties a table that stays; after the way back the schema is that of the models, with every row."""
    own.dispose()
    engine = make_engine(parse_url(own_url))
    revisions = _revisions()
    try:
        with engine.begin() as connection:
            _fill(connection)
            before = _counts(connection)
        assert min(before.values()) == 1, before
        for revision in _STRIDES:
            migrate.downgrade(own_url, revision)
            with engine.begin() as connection:
                after = _counts(connection)
            emptied = {name for name in after if after[name] < before[name]}
            assert not emptied, f"the way down to {revision} empties {emptied}"
            before = after
        for revision in revisions[1:]:
            _upgrade_to(own_url, revision)
            with engine.begin() as connection:
                after = _counts(connection)
                emptied = {name for name in before if after.get(name, 0) < before[name]}
                assert not emptied, f"the way up to {revision} empties {emptied}"
                _fill(connection)
                before = _counts(connection)
        with engine.connect() as connection:
            assert set(before) == set(Base.metadata.tables) - _OWN_ROWS
            context = MigrationContext.configure(
                connection,
                opts={"compare_type": True, "include_object": lambda _, name, *__: name not in ENGINE_OWN},
            )
            assert compare_metadata(context, Base.metadata) == []
    finally:
        engine.dispose()


def _upgrade_to(url: str, revision: str) -> None:
    migrate._change(url, lambda config: command.upgrade(config, revision))
