"""Whatever the desk can do over HTTP, the client and the command line can do: held against the OpenAPI document, the client's methods and the commands."""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from web.app import _ROUTERS
from wherefrom import cli
from wherefrom.cli.app import SERVICE_COMMANDS
from wherefrom.client import Service
from wherefrom.errors import WherefromError
from wherefrom.records import FixAction, Verdict

#: Operations that no method of the client sends, and why.
NOT_IN_CLIENT = {
    "GET /v1/audits.csv": "`export` makes CSV from what the client reads; this is for spreadsheets and browsers",
    "GET /v1/audits.jsonl": "older than `export.jsonl`, which the client reads; kept for callers by HTTP",
    "GET /v1/export.zip": "a client that streams rows needs no archive; `wherefrom export` writes file and manifest itself",
} | dict.fromkeys(
    (
        "GET /v1/erasures",
        "GET /v1/erasures/*",
        "POST /v1/erasures",
        "GET /v1/holds",
        "POST /v1/holds",
        "POST /v1/holds/*/lift",
        "GET /v1/retention-rules",
        "POST /v1/retention-rules",
        "POST /v1/retention-rules/*/end",
    ),
    "no work of the desk: an administrator's, by `python -m worker forget`, `holds` and `retention`, or the page /erasing",
)
#: Methods of the client that no command uses, and why.
NOT_IN_COMMANDS = {
    "flag_now": "`flag` sends files, a file of one record too",
    "fix_list": "`fix-lists` shows all that it tells",
}
#: What a method is given where its types do not say.
GIVEN: dict[str, Any] = {
    "group": {"audits": [1, 2]},
    "record": {"model": "m", "prompt": "p", "completion": "c", "reason": "r"},
    "records": (),
    "verdict": Verdict.CONFIRMED,
    "give": Verdict.CONFIRMED,
    "action": FixAction.REMOVE,
}


def operations() -> set[str]:
    """Every operation of the API, with `*` for each number in its path."""
    app = FastAPI()
    for router in _ROUTERS:
        app.include_router(router)
    paths = app.openapi()["paths"]
    found = {
        f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs if path.startswith("/v1/")
    }
    return {re.sub(r"\{[^}]*\}", "*", one) for one in found}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What clients ask for meanwhile; nothing is answered."""
    asked: list[str] = []

    def send(_: httpx.Client, request: httpx.Request, **__: Any) -> httpx.Response:
        asked.append(f"{request.method} {re.sub(r'/[0-9]+(?=/|$)', '/*', request.url.path)}")
        raise httpx.ConnectError("nobody is there")

    monkeypatch.setattr(httpx.Client, "send", send)
    return asked


def methods() -> dict[str, Callable[..., Any]]:
    """The client's public methods."""
    return {
        name: one for name, one in inspect.getmembers(Service, inspect.isfunction) if not name.startswith("_")
    }


def call(service: Service, name: str) -> None:
    """Call a method with made-up values; what it reads is begun."""
    asked = [one for one in inspect.signature(methods()[name]).parameters.values() if one.name != "self"]
    needed = [one for one in asked if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    given = {one.name: GIVEN.get(one.name, _made_up(str(one.annotation))) for one in needed}
    for further in ({}, {"example_ids": ["x"], "completion": "x", "training_example_ids": [1]}):
        known = {one.name for one in asked}
        extra = {key: value for key, value in further.items() if key in known}
        try:
            found = getattr(service, name)(**given, **extra)
            next(iter(found), None)
        except (WherefromError, TypeError, ValueError):
            continue


def _made_up(annotation: str) -> Any:
    if "Sequence[int]" in annotation or "Iterable[int]" in annotation:
        return [1]
    return 1 if "int" in annotation else "x"


def test_every_operation_is_a_method_of_the_client(sent: list[str]) -> None:
    """But for those that a client has no use for, each with its reason; and no method asks for what the API does not have."""
    with Service("http://127.0.0.1:9") as service:
        for name in methods():
            call(service, name)
    known, asked = operations(), set(sent)
    assert known - asked == set(NOT_IN_CLIENT)
    assert asked <= known


def test_every_method_of_the_client_is_used_by_a_command() -> None:
    """But for those with a reason; and every command asks the service something."""
    used = {name: _attributes_of(command) for name, command in SERVICE_COMMANDS.items()}
    everything = set().union(*used.values())
    assert set(methods()) - everything == set(NOT_IN_COMMANDS)
    assert [name for name, found in used.items() if not found & set(methods())] == []


def _attributes_of(command: Callable[..., Any]) -> set[str]:
    """Names of attributes that a command, and what it calls of its package, read."""
    found: set[str] = set()
    waiting, seen = [(importlib.import_module(command.__module__), command.__name__)], set()
    while waiting:
        module, name = waiting.pop()
        if (module.__name__, name) in seen:
            continue
        seen.add((module.__name__, name))
        body = _functions(module).get(name)
        if body is None:
            continue
        found |= {one.attr for one in ast.walk(body) if isinstance(one, ast.Attribute)}
        for one in ast.walk(body):
            if isinstance(one, ast.Name):
                waiting += _where(module, one.id)
    return found


@functools.cache
def _functions(module: ModuleType) -> dict[str, ast.AST]:
    tree = ast.parse(Path(str(module.__file__)).read_text("utf-8"))
    return {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef | ast.ClassDef)}


def _where(module: ModuleType, name: str) -> Iterator[tuple[ModuleType, str]]:
    """Where a name of the command line's package is defined; nothing where it is another's."""
    one = getattr(module, name, None)
    home = getattr(one, "__module__", "") or ""
    named = getattr(one, "__name__", None)
    if home.startswith(cli.__name__) and named is not None:
        yield importlib.import_module(home), named
