"""Stored training examples: texts that citations point to, added once per corpus however many workers cite them."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import TrainingExample
from db.statements import insert_new
from wherefrom import records
from wherefrom.records.bounds import MAX_STORED_NAME_CHARS, shortened

#: Values in one IN list or rows in one round of inserts: below every engine's limit of variables.
CHUNK = 500
#: U+FFFD, put where a text has what no SQL text column holds.
REPLACEMENT = "\ufffd"


def stored_ids(
    session: Session, corpus_id: int, examples: Iterable[records.TrainingExample]
) -> dict[str, int]:
    """The row ids of examples by their `example_id`; examples that are not stored yet are added.

    The examples of a large corpus are stored when they are first cited, and that may happen in several workers at once.
    """
    wanted = {storable_name(one.example_id): one for one in examples}
    found = read_ids(session, corpus_id, wanted)
    missing = {name: one for name, one in wanted.items() if name not in found}
    if missing:
        add_examples(session, corpus_id, missing.values())
        found |= read_ids(session, corpus_id, missing)
    return {one.example_id: found[name] for name, one in wanted.items()}


def add_examples(session: Session, corpus_id: int, examples: Iterable[records.TrainingExample]) -> None:
    """Store examples of a corpus, except those that are stored already."""
    rows = sorted((_row(corpus_id, one) for one in examples), key=lambda row: str(row["example_id"]))
    if rows:
        unique = (TrainingExample.corpus_id, TrainingExample.example_id)
        session.execute(insert_new(session, TrainingExample, unique), rows)


def read_ids(session: Session, corpus_id: int, example_ids: Iterable[str]) -> dict[str, int]:
    """The row ids of those examples that are stored, by their id as it is stored (`storable_name`)."""
    found: dict[str, int] = {}
    remaining = iter(example_ids)
    while chunk := list(islice(remaining, CHUNK)):
        columns = select(TrainingExample.example_id, TrainingExample.id)
        mine = columns.where(TrainingExample.corpus_id == corpus_id, TrainingExample.example_id.in_(chunk))
        found.update((row.example_id, row.id) for row in session.execute(mine))
    return found


def _row(corpus_id: int, example: records.TrainingExample) -> dict[str, Any]:
    return {
        "corpus_id": corpus_id,
        "example_id": storable_name(example.example_id),
        "row": example.row,
        "source": storable_name(example.source),
        "prompt": storable_text(example.prompt),
        "completion": storable_text(example.completion),
        "text_sha256": example.text_sha256,
        "fields": storable_json(example.fields),
    }


def storable_name(name: str) -> str:
    """An id or a source as it is stored and indexed. Only bundles of earlier releases hold some that are cut here."""
    return shortened(storable_text(name), longest=MAX_STORED_NAME_CHARS)


def storable_text(text: str) -> str:
    """The text with NUL and lone surrogates replaced by U+FFFD; control and bidi characters are evidence and stay.

    Corpora come from anywhere. `text_sha256` stays the hash of the original, so a replacement can be noticed.
    """
    return text.replace("\x00", REPLACEMENT).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def storable_json(value: Any) -> Any:
    """The value as JSON that both engines take: texts as above, numbers that are not finite as null, the rest as text."""
    match value:
        case str():
            return storable_text(value)
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {storable_text(str(key)): storable_json(one) for key, one in value.items()}
        case list() | tuple():
            return [storable_json(one) for one in value]
        case _:
            return storable_text(str(value))
