"""What `COMPATIBLE_FROM` declares: every statement of a release since then goes on working on the newest schema, because revisions only add.

An older release names the columns that it knows when it reads or writes. So nothing that it names may go or change its type, and nothing may refuse a row of it: no column without
a value, no CHECK, UNIQUE, foreign key or trigger that came later.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from db import migrate
from db.session import Database, make_engine, parse_url

_TRIGGERS = {
    "sqlite": "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT event_object_table, trigger_name FROM information_schema.triggers",
}
#: What may refuse a row and does not: no release before wrote reviews; the triggers take away what goes with a text, or refuse what no release does to the trail.
KNOWN = {
    ("0015", "review: an older release gives blind no value"),
    ("0015", "review: verdict may refuse a row of an older release"),
    ("0017", "flagged_text: flagged_text_words_erased may refuse a row of an older release"),
    ("0017", "training_example: training_example_words_erased may refuse a row of an older release"),
    ("0025", "flagged_text: flagged_text_alike_erased may refuse a row of an older release"),
    ("0026", "trail_event: trail_event_new_only may refuse a row of an older release"),
    ("0026", "trail_event: trail_event_no_delete may refuse a row of an older release"),
    ("0026", "trail_event: trail_event_no_update may refuse a row of an older release"),
}


@dataclass(frozen=True)
class Table:
    """What statements of an older release depend on."""

    #: Type, whether it may be NULL, whether the database has a value for it.
    columns: dict[str, tuple[str, bool, bool]]
    #: What can refuse a row: its name, and its text or columns, so that a changed one counts as a new one.
    rules: frozenset[tuple[str, str]]


Schema = dict[str, Table]
#: Rules or indexes of all tables, as `Inspector.get_multi_*` tells them.
Described = Mapping[tuple[str | None, str], Sequence[Mapping[str, Any]]]


def _schema(connection: Connection) -> Schema:
    found = inspect(connection)
    rules: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, trigger in connection.execute(text(_TRIGGERS[connection.dialect.name])):
        rules[name].add((trigger, "trigger"))
    unique = {key: [one for one in some if one["unique"]] for key, some in found.get_multi_indexes().items()}
    described: list[tuple[Described, str]] = [
        (found.get_multi_check_constraints(), "sqltext"),
        (found.get_multi_unique_constraints(), "column_names"),
        (found.get_multi_foreign_keys(), "constrained_columns"),
        (unique, "column_names"),
    ]
    for kinds, said in described:
        for (_, name), some in kinds.items():
            rules[name] |= {(str(one["name"]), str(one[said])) for one in some}
    return {
        name: Table({one["name"]: _column(one) for one in columns}, frozenset(rules[name]))
        for (_, name), columns in found.get_multi_columns().items()
    }


def _column(one: Any) -> tuple[str, bool, bool]:
    return str(one["type"]), one["nullable"], one["default"] is not None


def _broken(before: Schema, after: Schema) -> Iterator[str]:
    """What of an older release's statements may fail after a revision."""
    for name, old in before.items():
        if name in after:
            yield from (f"{name}: {one}" for one in _broken_table(old, after[name]))
        else:
            yield f"{name}: the table is gone"


def _broken_table(old: Table, new: Table) -> Iterator[str]:
    for column, (kind, nullable, _) in old.columns.items():
        if column not in new.columns:
            yield f"column {column} is gone"
        elif new.columns[column][0] != kind:
            yield f"column {column} was {kind}"
        elif nullable and not new.columns[column][1]:
            yield f"column {column} may no longer be NULL"
    for column, (_, nullable, given) in new.columns.items():
        if column not in old.columns and not nullable and not given:
            yield f"an older release gives {column} no value"
    for rule, said in sorted(new.rules - old.rules):
        words = set(re.findall(r"\w+", said))
        if (
            words & old.columns.keys() or said == "trigger"
        ):  # else it is about columns that an older release leaves NULL
            yield f"{rule} may refuse a row of an older release"


def test_revisions_since_the_oldest_declared_release_only_add(database_url: str) -> None:
    """A revision that takes something away comes in a later release than the one that stops using it, and raises `COMPATIBLE_FROM`."""
    revisions = reversed(list(ScriptDirectory.from_config(migrate._config()).walk_revisions()))
    engine = make_engine(parse_url(database_url), foreign_keys=False)
    broken, before = [], None
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        for one in revisions:
            one.module.upgrade()
            if one.revision < migrate.COMPATIBLE_FROM:
                continue
            after = _schema(connection)
            broken += [(one.revision, told) for told in _broken(before or {}, after)]
            before = after
    engine.dispose()
    assert not [one for one in broken if one not in KNOWN], "\n".join(map(str, broken))


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("ALTER TABLE audit DROP COLUMN seconds", ["audit: column seconds is gone"]),
        ("ALTER TABLE audit RENAME COLUMN seconds TO took_s", ["audit: column seconds is gone"]),
        ("DROP TABLE saved_view", ["saved_view: the table is gone"]),
        ("ALTER TABLE audit ADD COLUMN extra INTEGER", []),
        ("ALTER TABLE audit ADD COLUMN extra INTEGER NOT NULL DEFAULT 0", []),
        ("CREATE TABLE extra (id INTEGER NOT NULL)", []),
        ("CREATE INDEX ix_extra ON audit (seconds)", []),
        (
            "CREATE UNIQUE INDEX uq_extra ON audit (seconds)",
            ["audit: uq_extra may refuse a row of an older release"],
        ),
        ("ALTER TABLE audit ADD COLUMN extra INTEGER CONSTRAINT ck_extra CHECK (extra > 0)", []),
        (
            "CREATE TRIGGER extra BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END",
            ["audit: extra may refuse a row of an older release"],
        ),
    ],
)
def test_what_breaks_an_older_release_is_found(lite: Database, statement: str, told: list[str]) -> None:
    """Each way to break it by a statement."""
    with lite.writing() as session:
        connection = session.connection()
        for view in inspect(connection).get_view_names():
            session.execute(text(f"DROP VIEW {view}"))
        before = _schema(connection)
        session.execute(text(statement))
        assert list(_broken(before, _schema(session.connection()))) == told
