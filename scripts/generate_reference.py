"""Write docs/settings.md, docs/errors.md and docs/metrics.md from the code that they describe.

`python -m scripts.generate_reference` writes; with `--check` nothing is written and the exit code is 1 when a page is not
what the code says. The descriptions live in `wherefrom/settings.py`, `wherefrom/errors/` and `wherefrom/metrics.yaml`.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from wherefrom import errors
from wherefrom.errors import permanent, roots, transient
from wherefrom.metrics import PREFIX, declared_metrics
from wherefrom.notify_settings import NotifySettings
from wherefrom.settings import Settings

_DOCS = Path(__file__).resolve().parent.parent / "docs"
_GENERATED = "<!-- Written by `make docs-write`; edit {source} instead. -->\n"


def settings_page() -> str:
    """Every setting: its environment variable, its default, the values it takes, what it does."""
    rows = [
        (f"`WHEREFROM_{name.upper()}`", _default(field), _values(field), field.description or "")
        for name, field in sorted(
            Settings.model_fields.items(), key=lambda one: one[0] in NotifySettings.model_fields
        )
    ]
    return (
        _GENERATED.format(source="wherefrom/settings.py")
        + "# Settings\n\n"
        + "All settings are environment variables with the prefix `WHEREFROM_`. A value that cannot be used stops the program\n"
        + "at its start with the variable's name. Secrets are masked in logs.\n\n"
        + _table(("variable", "default", "values", "meaning"), rows)
    )


def errors_page() -> str:
    """Every stable code, with what the queue does about it."""
    rows = [(f"`{one.code}`", _policy(one), _first_line(one)) for one in error_classes()]
    stored = [(f"`{code}`", text) for code, text in errors.STORED_CODES.items()]
    return (
        _GENERATED.format(source="wherefrom/errors/")
        + "# Error codes\n\n"
        + "Codes are stable, so scripts may depend on them. You find them with audits that were not answered, in HTTP answers and in\n"
        + "the command line's `--json` output. The text beside a code may change.\n\n"
        + _table(("code", "what happens next", "meaning"), rows)
        + "\n## Codes that are stored without an error of their own\n\n"
        + _table(("code", "meaning"), stored)
    )


def metrics_page() -> str:
    """Every Prometheus series."""
    rows = [
        (
            f"`{PREFIX}{name}`",
            one["type"],
            ", ".join(f"`{label}`" for label in one["labels"]) or "none",
            one["text"],
        )
        for name, one in declared_metrics().items()
    ]
    return (
        _GENERATED.format(source="wherefrom/metrics.yaml")
        + "# Metrics\n\n"
        + "The web process serves them at `/metrics` in the Prometheus text format.\n\n"
        + "- Counters and histograms are totals of all processes of the service, on every machine. Each process adds its counts every 5 seconds\n"
        + "  ([why](adr/0014-counters-in-the-database.md)). Every web process shows the same totals: scrape one of them, or take the maximum.\n"
        + f"- {_own_metrics()} are of the web process that answers alone: scrape all of them, and add these up.\n"
        + "- Gauges are read from the database and Redis.\n\n"
        + _table(("metric", "type", "labels", "meaning"), rows)
    )


def _own_metrics() -> str:
    own = [f"`{PREFIX}{name}`" for name, one in declared_metrics().items() if one.get("scope") == "process"]
    return " and ".join(own)


def error_classes() -> list[type[errors.WherefromError]]:
    """The classes of `wherefrom.errors` in the order of its files, the root left out."""
    return [
        one
        for file in (roots, permanent, transient)
        for one in vars(file).values()
        if inspect.isclass(one)
        and issubclass(one, errors.WherefromError)
        and one is not errors.WherefromError
        and one.__module__ == file.__name__
    ]


def pages() -> dict[Path, str]:
    """Every generated page by its path."""
    return {
        _DOCS / "settings.md": settings_page(),
        _DOCS / "errors.md": errors_page(),
        _DOCS / "metrics.md": metrics_page(),
    }


def main() -> int:
    """Write the pages, or check them; the exit code is 1 when a page is out of date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when a page is out of date"
    )
    if parser.parse_args().check:
        stale = [
            path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text
        ]
        for path in stale:
            sys.stderr.write(f"docs/{path.name} is out of date; run `make docs-write`\n")
        return int(bool(stale))
    _DOCS.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "not set"
    if isinstance(value, bool | tuple):
        value = json.dumps(value)
    return "empty" if value == "" else f"`{value}`"


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(field.annotation))
    return ", ".join(_bounds(field)) or _kind(field.annotation)


def _kind(annotation: object) -> str:
    """What a reader has to write for a value of this type."""
    if get_origin(annotation) is tuple:
        return "JSON list"
    if SecretStr in (annotation, *get_args(annotation)):
        return "secret"
    plain = next((one for one in get_args(annotation) if one is not NoneType), annotation)
    names: dict[object, str] = {bool: "`true`, `false`", Path: "path", str: "text"}
    return names.get(plain, str(plain))


def _bounds(field: FieldInfo) -> Iterator[str]:
    for sign, name in ((">=", "ge"), (">", "gt"), ("<=", "le"), ("<", "lt")):
        for rule in field.metadata:
            if getattr(rule, name, None) is not None:
                yield f"{sign} {getattr(rule, name)}"


def _policy(one: type[errors.WherefromError]) -> str:
    if issubclass(one, errors.PermanentError):
        return "no retry"
    if issubclass(one, errors.TransientError):
        return "retries with growing waits"
    return "a bug: `dead` at once"


def _first_line(one: type[errors.WherefromError]) -> str:
    return (inspect.getdoc(one) or "").split("\n", 1)[0]


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
