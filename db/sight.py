"""What a caller may see: a limit to producers, models and review queues, applied beneath every statement that is run for them.

A query that had to think of the limit would one day be written by somebody who did not. So none does: while a sight is set, each
statement gets a WITH part in front that puts, under the name of each table, only the rows within the limit. Joins, counts, searches and
subqueries read these, and so does SQL that is written by hand.

Tables that belong to an output are found by their foreign keys. The others are named here. A table that nobody named is empty for a limited
caller, and so is every view: what is kept over all outputs cannot be told apart afterwards.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, event

from db.models import Base
from db.sql_views.views import VIEWS


@dataclass(frozen=True)
class Limits:
    """Which outputs a key may see or send: all of these conditions hold. An empty one limits nothing."""

    producers: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    #: Names of review queues, for what may be seen.
    queues: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        """Whether anything is limited."""
        return bool(self.producers or self.models or self.queues)

    def stored(self) -> dict[str, list[str]] | None:
        """As `api_key.limits` holds them; None where nothing is limited."""
        parts = {"producers": self.producers, "models": self.models, "queues": self.queues}
        return {name: list(values) for name, values in parts.items() if values} or None


#: Everything may be seen and sent.
NO_LIMITS = Limits()


def limits_of(stored: Mapping[str, Sequence[str]] | None) -> Limits:
    """The limits in `api_key.limits`."""
    return Limits(**{name: tuple(values) for name, values in (stored or {}).items()})


@dataclass(frozen=True)
class Sight:
    """What the statements of a request may read."""

    limits: Limits
    #: Who asks: their saved views are theirs.
    person_id: int | None = None


_SIGHT: ContextVar[Sight | None] = ContextVar("wherefrom_sight", default=None)


def see_only(sight: Sight | None) -> None:
    """Limit every statement until the task of the request ends; None limits nothing."""
    _SIGHT.set(sight)


@contextmanager
def unlimited() -> Iterator[None]:
    """No limit in the block: whoever asks is looked up among all keys, also where the request was limited before."""
    before = _SIGHT.set(None)
    try:
        yield
    finally:
        _SIGHT.reset(before)


def is_limited() -> bool:
    """Whether the statements that are run now see a part only: what they find must not be kept for others."""
    return _SIGHT.get() is not None


def limit_statements(engine: Engine) -> None:
    """Put the limit in front of every statement of an engine."""

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _limit(  # noqa: PLR0917 - SQLAlchemy dictates the signature
        connection: Connection,
        cursor: object,
        statement: str,
        parameters: Any,
        context: object,
        many: bool,  # noqa: FBT001 - as above
    ) -> tuple[str, Any]:
        del cursor, context
        sight = _SIGHT.get()
        if sight is None:
            return statement, parameters
        return _limited(connection.dialect, sight, statement, parameters, many=many)


_WORDS = re.compile(r"\w+")
_LOCK = re.compile(r"\bFOR (?:NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)\b")
_RECURSIVE, _WITH = re.compile(r"\s*WITH\s+RECURSIVE\b"), re.compile(r"\s*WITH\b")
_READS = re.compile(r"\s*(?:\(\s*)*SELECT\b|\s*(?:INSERT|UPDATE|DELETE)\b")
#: Statements that name no row: transactions and settings of the connection.
_NEUTRAL = re.compile(r"\s*(?:SET|SHOW|BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|PRAGMA)\b")


class UnlimitableStatementError(Exception):
    """A statement of a form that the limit does not know: a fault of ours, so it is not run."""


def _limited(
    dialect: Dialect, sight: Sight, statement: str, parameters: Any, *, many: bool
) -> tuple[str, Any]:
    named = frozenset(_WORDS.findall(statement)) & _names()
    if not named or _NEUTRAL.match(statement):
        return statement, parameters
    statement, inline = _with_locked_parts(dialect, sight, statement)
    prefix, values = _prefix(dialect.name, sight, named)
    values = (values | inline) if isinstance(values, dict) else values
    if _RECURSIVE.match(statement):
        whole = f"{prefix} SELECT * FROM ({statement}) AS limited"  # noqa: S608 - the statement is one of ours
    elif _WITH.match(statement):
        whole = f"{prefix}, {_WITH.sub('', statement, count=1)}"
    elif _READS.match(statement):
        whole = f"{prefix} {statement}"
    else:
        raise UnlimitableStatementError(statement.split(None, 1)[0])
    return whole, [_joined(values, one) for one in parameters] if many else _joined(values, parameters)


def _joined(values: Any, parameters: Any) -> Any:
    if isinstance(values, dict):
        return {**values, **(parameters or {})}
    return (*values, *(parameters or ()))


@dataclass(frozen=True)
class _Writer:
    """Writes conditions in the words of an engine."""

    sight: Sight
    #: In which the tables are; None for PostgreSQL's WITH parts, each of which reads the table that it stands for under its own name.
    schema: str | None

    def real(self, table: str) -> str:
        """The table behind the name, which may be that of a WITH part."""
        return table if self.schema is None else f"{self.schema}.{table}"

    def among(self, column: str, part: str) -> str:
        """That a column is one of the values of a part of the limits."""
        number = len(getattr(self.sight.limits, part))
        return f"{column} IN ({', '.join(self.mark(f'{part}_{place}') for place in range(number))})"

    def mark(self, name: str) -> str:
        """Where a value is put; `_prefix` gives the values in the order of the marks."""
        return f"%(sight_{name})s"


_Rule = Callable[[_Writer], str]


def _outputs(writer: _Writer) -> str:
    """An output within the limits; one that is supposed goes with the one in whose place it stands, a group with all its outputs."""
    output, member = writer.real(ROOT), writer.real("output_group_member")
    supposed = f"SELECT 1 FROM {output} o WHERE o.id = r.hypothetical_of AND {_within(writer, 'o')}"  # noqa: S608 - names of ours
    beyond = f"SELECT 1 FROM {member} m JOIN {output} o ON o.id = m.member_id WHERE m.group_id = r.id AND NOT ({_within(writer, 'o')})"  # noqa: S608 - names of ours
    return (
        f"CASE WHEN r.hypothetical_of IS NOT NULL THEN EXISTS ({supposed})"
        f" WHEN r.members IS NOT NULL THEN NOT EXISTS ({beyond}) ELSE {_within(writer, 'r')} END"
    )


def _within(writer: _Writer, row: str) -> str:
    limits, parts = writer.sight.limits, []
    if limits.producers:
        parts.append(writer.among(f"{row}.producer", "producers"))
    if limits.models:
        parts.append(writer.among(f"{row}.model", "models"))
    if limits.queues:
        audit, item, queue = map(writer.real, ("audit", "review_item", "review_queue"))
        parts.append(
            f"EXISTS (SELECT 1 FROM {audit} a JOIN {item} i ON i.audit_id = a.id JOIN {queue} q ON q.id = i.queue_id"  # noqa: S608 - names of ours
            f" WHERE a.flagged_output_id = {row}.id AND i.state <> 'removed' AND {writer.among('q.name', 'queues')})"
        )
    return " AND ".join(parts) or "1 = 1"


def _of_queues(column: str) -> _Rule:
    """A row of a review queue: within the limit of queues, or anyway."""

    def rule(writer: _Writer) -> str:
        if not writer.sight.limits.queues:
            return "1 = 1"
        queue = writer.real("review_queue")
        return f"{column} IN (SELECT q.id FROM {queue} q WHERE {writer.among('q.name', 'queues')})"  # noqa: S608 - names of ours

    return rule


def _of_models(condition: str) -> _Rule:
    """A row of a model: its condition has the name of the model within the limit, or it shows anyway."""

    def rule(writer: _Writer) -> str:
        if not writer.sight.limits.models:
            return "1 = 1"
        revision = writer.real("model_revision")
        return condition.format(revision=revision, among=writer.among("m.name", "models"))

    return rule


def _where(condition: str) -> _Rule:
    return lambda _: condition


def _mine(writer: _Writer) -> str:
    return "1 = 0" if writer.sight.person_id is None else f"r.person_id = {int(writer.sight.person_id)}"


#: Everything hangs on this one.
ROOT = "flagged_output"

#: Tables that hold nothing of any output, and that a limited caller's requests read.
OPEN = frozenset({"person", "schema_release", "key_budget", "engine_setup"})

#: Conditions besides those of the foreign keys that lead to an output.
_FURTHER: dict[str, _Rule] = {ROOT: _outputs, "review_item": _of_queues("r.queue_id")}


@dataclass(frozen=True)
class _Limited:
    """How a table or view is limited."""

    #: Its condition on a row `r`.
    rule: _Rule
    #: What must be there first.
    needs: tuple[str, ...] = ()


#: Tables that hang on no output.
_OTHERS = {
    "training_example": _Limited(
        _where(
            "EXISTS (SELECT 1 FROM citation c WHERE c.training_example_id = r.id)"
            " OR EXISTS (SELECT 1 FROM review_row w WHERE w.training_example_id = r.id)"
        ),
        ("citation", "review_row"),
    ),
    "example_words": _Limited(
        _where("EXISTS (SELECT 1 FROM training_example e WHERE e.id = r.training_example_id)"),
        ("training_example",),
    ),
    "model_revision": _Limited(_of_models("r.id IN (SELECT m.id FROM {revision} m WHERE {among})")),
    "bundle": _Limited(_of_models("r.model_revision_id IN (SELECT m.id FROM {revision} m WHERE {among})")),
    "corpus": _Limited(_where("EXISTS (SELECT 1 FROM bundle b WHERE b.corpus_id = r.id)"), ("bundle",)),
    "measuring_check": _Limited(
        _where("EXISTS (SELECT 1 FROM bundle b WHERE b.id = r.bundle_id)"), ("bundle",)
    ),
    "review_queue": _Limited(
        lambda writer: (
            f"{_of_queues('r.id')(writer)} AND EXISTS (SELECT 1 FROM review_item i WHERE i.queue_id = r.id)"  # noqa: S608 - names of ours
        ),
        ("review_item",),
    ),
    "review_member": _Limited(
        _where("EXISTS (SELECT 1 FROM review_queue q WHERE q.id = r.queue_id)"),
        ("review_queue",),
    ),
    "saved_view": _Limited(_mine),
}


@cache
def plan() -> dict[str, _Limited]:
    """Every table and view that is limited, each after those that it needs."""
    found: dict[str, _Limited] = {}
    tables = list(Base.metadata.sorted_tables)
    for table in tables:
        keys = [
            (key.parent.name, key.column.table.name, key.column.name, bool(key.parent.nullable))
            for key in table.foreign_keys
            if key.column.table.name in found and key.column.table is not table
        ]
        if table.name not in _OTHERS and (keys or table.name == ROOT):
            needs = tuple(sorted({target for _, target, _, _ in keys}))
            found[table.name] = _Limited(_by_keys(sorted(keys), _FURTHER.get(table.name)), needs)
    found |= _OTHERS
    hidden = [one.name for one in tables if one.name not in found and one.name not in OPEN]
    return found | {name: _Limited(_where("1 = 0")) for name in (*hidden, *VIEWS)}


def _by_keys(keys: list[tuple[str, str, str, bool]], further: _Rule | None) -> _Rule:
    def rule(writer: _Writer) -> str:
        parts = [] if further is None else [further(writer)]
        for column, target, key, nullable in keys:
            known = f"EXISTS (SELECT 1 FROM {target} t WHERE t.{key} = r.{column})"  # noqa: S608 - names of ours
            parts.append(f"(r.{column} IS NULL OR {known})" if nullable else known)
        return " AND ".join(parts)

    return rule


@cache
def _names() -> frozenset[str]:
    return frozenset(plan())


_MARK = re.compile(r"%\((sight_\w+)\)s")


@lru_cache(maxsize=1024)
def _text(dialect: str, sight: Sight, named: frozenset[str]) -> str:
    """The WITH part for the tables that a statement names, and for those that these need."""
    wanted: set[str] = set()
    todo = list(named)
    while todo:
        one = todo.pop()
        if one not in wanted:
            wanted.add(one)
            todo += plan()[one].needs
    writer = _Writer(sight, "main" if dialect == "sqlite" else None)
    parts = [f"{name} AS NOT MATERIALIZED ({_rows(writer, name)})" for name in plan() if name in wanted]
    return f"WITH {', '.join(parts)}"


def _rows(writer: _Writer, name: str) -> str:
    return f"SELECT r.* FROM {writer.real(name)} AS r WHERE {plan()[name].rule(writer)}"  # noqa: S608 - names of ours


def _values(sight: Sight) -> dict[str, str]:
    return {
        f"sight_{part}_{place}": value
        for part in ("producers", "models", "queues")
        for place, value in enumerate(getattr(sight.limits, part))
    }


def _prefix(dialect: str, sight: Sight, named: frozenset[str]) -> tuple[str, Any]:
    """The WITH part and its values, in the form that the driver of the engine takes."""
    text, values = _text(dialect, sight, named), _values(sight)
    if dialect != "sqlite":
        return text, values if _MARK.search(text) else {}
    return _MARK.sub("?", text), tuple(values[name] for name in _MARK.findall(text))


def _with_locked_parts(dialect: Dialect, sight: Sight, statement: str) -> tuple[str, dict[str, str]]:
    """PostgreSQL locks no rows of a WITH part: what a statement locks is limited where it stands, in the table itself."""
    if dialect.name == "sqlite" or _LOCK.search(statement) is None:
        return statement, {}
    writer = _Writer(sight, dialect.default_schema_name)

    def inlined(found: re.Match[str]) -> str:
        word, name, alias = found["word"], found["name"], found["alias"]
        if name not in _names():
            return found.group()
        return f"{word} ({_rows(writer, name)}) AS {alias or name}"

    return _FROM.sub(inlined, statement), _values(sight)


_FROM = re.compile(r"\b(?P<word>FROM|JOIN) (?P<name>[a-z_]+)\b(?! *\()(?: AS (?P<alias>\w+))?")
