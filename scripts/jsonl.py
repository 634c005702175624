"""Reads and writes files of JSON lines, for what makes the demo and for benchmarks."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wherefrom.atomic import write_text
from wherefrom.attribution.corpus import read_jsonl
from wherefrom.errors import ConfigurationError, InvalidRecord


def rows_of(file: Path, *, option: str = "") -> list[dict[str, Any]]:
    """Objects of a JSONL file (or of one JSON list), which may be compressed.

    Args:
        file: The file.
        option: The option that names it or its folder, for the message.

    Raises:
        ConfigurationError: there is no such file.
        InvalidRecord: a line is no JSON.
    """
    if not file.is_file():
        named = f"; {option} names it or the folder that holds it" if option else ""
        raise ConfigurationError(f"{file}: no such file{named}")
    rows = []
    for place, content in read_jsonl(file):
        if isinstance(content, InvalidRecord):
            raise InvalidRecord(f"{place}: {content}") from content
        rows.append(content)
    return rows


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write a JSONL file, whole or not at all, and return its path; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file
