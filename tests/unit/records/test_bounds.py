"""No record has a text, a sequence or a mapping without a bound, and what breaks one costs little."""

import importlib
import json
import pkgutil
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from wherefrom import messages, records
from wherefrom.errors import WherefromError
from wherefrom.records import FlaggedRecord
from wherefrom.records.bounds import MAX_FIELDS, MAX_LABELS, shortened
from wherefrom.records.explain import MAX_PROBLEMS, describe_problems

GOOD = {"prompt": "p", "completion": "c", "model": "m"}
BODY_BYTES = 4_500_000


def _models() -> list[type[BaseModel]]:
    """All records, also those that nobody exports."""
    modules = [
        importlib.import_module(f"{records.__name__}.{one.name}")
        for one in pkgutil.iter_modules(records.__path__)
    ]
    found = {
        value
        for module in [*modules, messages]
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseModel)
        and value.__module__.startswith("wherefrom.")
    }
    return sorted(found, key=lambda model: model.__qualname__)


def _unbounded(schema: Any, where: str, *, texts_bounded: bool = False) -> Iterator[str]:
    """Places of a core schema that take texts or containers of any length."""
    if isinstance(schema, list | tuple):
        for one in schema:
            yield from _unbounded(one, where, texts_bounded=texts_bounded)
        return
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "model":
        texts_bounded = "str_max_length" in schema.get("config", {})
    needs = {"str", "list", "set", "frozenset", "dict", "generator", "bytes"}
    is_open = schema.get("type") in needs or "variadic_item_index" in schema
    if is_open and "max_length" not in schema and not (schema["type"] == "str" and texts_bounded):
        yield f"{where}: {schema['type']}"
    for name, part in schema.items():
        if name not in {"metadata", "config", "serialization", "ref"}:
            inner = f"{where}.{name}" if name in getattr(schema, "fields", ()) else where
            if name == "fields" and isinstance(part, dict):
                for field, one in part.items():
                    yield from _unbounded(one, f"{where}.{field}", texts_bounded=texts_bounded)
            else:
                yield from _unbounded(part, inner, texts_bounded=texts_bounded)


@pytest.mark.parametrize("model", _models(), ids=lambda model: model.__name__)
def test_every_field_of_every_record_has_a_bound(model: type[BaseModel]) -> None:
    """A new field without one fails here: give it `max_length`, or one of the types of `wherefrom.records.bounds`."""
    assert sorted(set(_unbounded(model.__pydantic_core_schema__, model.__name__))) == []


def test_the_walk_sees_what_has_no_bound() -> None:
    """The test above can fail."""

    class Loose(BaseModel):
        text: str
        items: tuple[int, ...]
        names: dict[str, int]
        deep: list[tuple[str, ...]] | None = None

    found = set(_unbounded(Loose.__pydantic_core_schema__, "L"))
    assert found == {
        "L.text: str", "L.items: tuple", "L.names: dict", "L.names: str", "L.deep: list", "L.deep: tuple", "L.deep: str",
    }  # fmt: skip


def _repeated(part: str) -> str:
    return ",".join([part] * (BODY_BYTES // (len(part) + 1)))


BOMBS = {
    "messages of zeros": f'"messages":[{_repeated("0")}]',
    "messages of objects": f'"messages":[{_repeated("{}")}]',
    "good messages": '"messages":[' + _repeated('{"role":"user","content":""}') + "]",
    "spans of zeros": f'"spans":[{_repeated("0")}]',
    "good spans": '"spans":[' + _repeated('{"start":0,"end":1}') + "]",
    "token ids of texts": '"token_ids":[' + _repeated('""') + "]",
    "good token ids": f'"token_ids":[{_repeated("1")}]',
    "labels": '"labels":{' + ",".join(f'"{number}":0' for number in range(400_000)) + "}",
    "empty label names": '"labels":{' + ",".join(f'"{number:0300d}":""' for number in range(10_000)) + "}",
    "unknown fields": ",".join(f'"x{number}":0' for number in range(400_000)),
    "unknown fields of a message": '"messages":[{'
    + ",".join(f'"x{number}":0' for number in range(400_000))
    + "}]",
    "unknown fields of a span": '"spans":[{' + ",".join(f'"x{number}":0' for number in range(400_000)) + "}]",
    "deep labels": '"labels":' + '{"a":' * 400 + "0" + "}" * 400,
    "one long text": f'"preferred":"{"x" * BODY_BYTES}"',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_body_costs_little(bomb: str) -> None:
    """Many small elements in one body took 3.8 GB; now they are refused with few problems, in little memory and time."""
    value = json.loads(f'{{"completion":"c","model":"m",{BOMBS[bomb]}}}')
    refusals: list[ValidationError] = []
    tracemalloc.start()
    started = time.monotonic()
    try:
        FlaggedRecord.model_validate({"prompt": "p", **value})
    except ValidationError as error:
        refusals.append(error)
        describe_problems(error)
    seconds = time.monotonic() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000
    assert seconds < 5
    for one in refusals:
        assert one.error_count() <= MAX_LABELS + MAX_FIELDS
        assert len(describe_problems(one)) < 2000


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("messages", [0] * 20_000, "`messages[0]`"),
        ("spans", [{"start": 0, "end": 1}] * 10_001, "10000"),
        ("token_ids", [2**31], "`token_ids[0]`"),
        ("token_ids", [10**4000], "`token_ids[0]`"),
        ("token_ids", [float("nan")], "`token_ids[0]`"),
        ("labels", {str(number): "" for number in range(51)}, "51 fields"),
        ("reason", "r" * 201, "200"),
        ("idempotency_key", "k" * 201, "200"),
    ],
)
def test_a_bound_is_told_with_its_field(field: str, value: Any, said: str) -> None:
    """One problem, which names the field or the limit."""
    with pytest.raises(ValidationError) as caught:
        FlaggedRecord.model_validate(
            {**GOOD, **({"prompt": None} if field == "messages" else {}), field: value}
        )
    assert said in describe_problems(caught.value)


def test_shortened_names_stay_different() -> None:
    """Within the length, and what was short stays as it is."""
    names = ["x" * 300, "x" * 301, "x" * 200]
    short = [shortened(one, longest=200) for one in names]
    assert len(set(short)) == 3
    assert {len(one) for one in short} == {200}
    assert short[2] == names[2]


def test_a_list_of_broken_records_is_told_by_its_first_problems() -> None:
    """The answer to a broken batch is short, however many there are."""
    from web.body import parse_records

    value = [{"bad": 1}] * 1000
    with pytest.raises(WherefromError, match="1000 of 1000 records") as caught:
        parse_records(value, max_records=1000, header_key=None)
    assert len(getattr(caught.value, "problems", ())) <= MAX_PROBLEMS
