"""Reads a training corpus (JSONL, Parquet or a Hugging Face `datasets` folder) into rows that can be cited.

A row holds `messages` (the last one is the completion), or `prompt` (or `messages`) and `completion`, or `text`; `id` and
`source` are optional, null is as good as absent, every other field is kept.
Nothing of a corpus with a bad row is taken, unless the caller asks to skip bad rows and be told how many.
Tokens are not made here (`models.render`), hashes of files neither (`bundles.manifest`).
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from wherefrom.errors import DuplicateExample, EmptyCorpus, InvalidRecord
from wherefrom.records import Message, Role, TrainingExample

#: Fields of a row with a meaning; all others are kept in `fields`.
KNOWN_FIELDS = frozenset({"id", "source", "prompt", "completion", "messages", "text"})
UNNAMED_SOURCE = "corpus"


@dataclass(frozen=True)
class CorpusRow:
    """One training example before it becomes tokens."""

    example_id: str
    source: str
    #: Turns before the completion; empty for a row of plain text.
    turns: tuple[Message, ...]
    completion: str
    fields: dict[str, Any] = field(default_factory=dict)
    #: Whether the prompt came as one text, not as messages; matters where the model has no chat template.
    plain_prompt: bool = False

    def prompt_text(self) -> str:
        """The prompt for people and for lexical search: the system turn is left out, turns are joined by newlines."""
        return "\n".join(turn.content for turn in self.turns if turn.role != Role.SYSTEM)

    def text_sha256(self) -> str:
        """Hash of everything that the model saw of this row."""
        parts = [f"{turn.role}\x1f{turn.content}" for turn in self.turns] + [self.completion]
        return hashlib.sha256("\x1e".join(parts).encode("utf-8")).hexdigest()

    def as_example(self, row: int) -> TrainingExample:
        """The record that is stored and shown."""
        return TrainingExample(
            example_id=self.example_id,
            row=row,
            source=self.source,
            prompt=self.prompt_text(),
            completion=self.completion,
            text_sha256=self.text_sha256(),
            fields=self.fields,
        )


@dataclass(frozen=True)
class Corpus:
    """All rows of a corpus in order, with the hash of their content."""

    name: str
    rows: tuple[CorpusRow, ...]
    #: SHA-256 over ids and text hashes in order.
    sha256: str
    #: Bad rows that were left out because the caller asked for it.
    skipped: int


def read_corpus(path: Path, *, skip_bad: bool = False) -> Corpus:
    """Read a corpus from a JSONL file, a Parquet file, or a folder of either (also a saved `datasets` folder).

    Raises:
        InvalidRecord: a row is malformed; the text names the file, the line and what to do.
        DuplicateExample: two rows have the same id.
        EmptyCorpus: there is no row.
    """
    files = _corpus_files(path)
    rows: list[CorpusRow] = []
    places: dict[str, str] = {}
    skipped = 0
    for file in files:
        for place, content in _raw_rows(file):
            try:
                row = parse_row(content, default_id=f"row-{len(rows) + skipped:06d}")
            except InvalidRecord as error:
                if skip_bad:
                    skipped += 1
                    continue
                raise InvalidRecord(f"{place}: {error}") from error
            if row.example_id in places:
                if skip_bad:
                    skipped += 1
                    continue
                raise DuplicateExample(
                    f"{place}: id {row.example_id!r} was already used at {places[row.example_id]}; ids must be unique"
                )
            places[row.example_id] = place
            rows.append(row)
    if not rows:
        raise EmptyCorpus(f"{path}: no usable training example ({skipped} bad rows skipped)")
    return Corpus(name=path.stem, rows=tuple(rows), sha256=corpus_sha256(rows), skipped=skipped)


def corpus_sha256(rows: Iterable[CorpusRow]) -> str:
    """The hash over ids and text hashes of rows, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.example_id}\x1f{row.text_sha256()}\n".encode())
    return digest.hexdigest()


def parse_row(content: Any, *, default_id: str) -> CorpusRow:
    """One row from its decoded JSON object (bytes and errors from the reader arrive here as `InvalidRecord`)."""
    if isinstance(content, InvalidRecord):
        raise content
    if not isinstance(content, dict):
        raise InvalidRecord(f"a row must be a JSON object, this one is {type(content).__name__}")
    turns, completion = _turns_and_completion(content)
    if not completion.strip():
        raise InvalidRecord("the completion is empty; there is nothing to explain without completion tokens")
    example_id = content.get("id") if content.get("id") is not None else default_id
    if not isinstance(example_id, str | int) or isinstance(example_id, bool) or example_id == "":
        raise InvalidRecord("`id` must be a non-empty string or a whole number")
    source = content.get("source") if content.get("source") is not None else UNNAMED_SOURCE
    if not isinstance(source, str) or not source:
        raise InvalidRecord("`source` must be a non-empty string")
    fields = {key: value for key, value in content.items() if key not in KNOWN_FIELDS}
    for name, value in {"id": str(example_id), "source": source, **fields}.items():
        for text in (name, *_texts(value)):
            _check_storable(text, name)
    plain = content.get("messages") is None and isinstance(content.get("prompt"), str)
    return CorpusRow(str(example_id), source, turns, completion, fields, plain_prompt=plain)


def _texts(value: Any) -> Iterator[str]:
    """All strings of a decoded JSON value, the names of its fields included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _check_storable(text: str, name: str) -> None:
    if "\x00" in text:
        raise InvalidRecord(f"field {name!r} contains U+0000 (NUL)")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRecord(
            f"field {name!r} contains a lone surrogate at position {error.start}; the text is not valid Unicode"
        ) from error


def _turns_and_completion(content: dict[str, Any]) -> tuple[tuple[Message, ...], str]:
    if content.get("messages") is not None:
        messages = _messages(content["messages"])
        if content.get("completion") is not None:
            return messages, _string(content, "completion")
        if messages[-1].role is not Role.ASSISTANT:
            raise InvalidRecord(f"the last message must be the assistant's, it is the {messages[-1].role}'s")
        return messages[:-1], messages[-1].content
    if content.get("completion") is not None or content.get("prompt") is not None:
        prompt = _string(content, "prompt")
        return _messages([{"role": "user", "content": prompt}]), _string(content, "completion")
    if content.get("text") is not None:
        return (), _string(content, "text")
    raise InvalidRecord("a row needs `messages`, or `prompt` and `completion`, or `text`")


def _messages(value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidRecord("`messages` must be a non-empty list of {role, content}")
    try:
        return tuple(
            Message.model_validate({"role": one["role"], "content": one["content"]}) for one in value
        )
    except (KeyError, TypeError) as error:
        raise InvalidRecord("each message needs `role` and `content`") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidRecord(f"message field `{'.'.join(map(str, first['loc']))}`: {first['msg']}") from error


def _string(content: dict[str, Any], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise InvalidRecord(
            f"field `{name}` must be a string, it is {'missing' if value is None else type(value).__name__}"
        )
    _check_storable(value, name)
    return value


def _corpus_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidRecord(f"{path}: no such corpus file or folder")
    if (path / "dataset_dict.json").is_file():
        splits = ", ".join(sorted(one.name for one in path.iterdir() if (one / "state.json").is_file()))
        raise InvalidRecord(
            f"{path}: holds several splits ({splits}); name the folder of the one that was trained on"
        )
    if (path / "state.json").is_file():  # a saved dataset names its own files; others beside it are caches
        return _saved_dataset_files(path)
    files = sorted(one for ending in ("*.jsonl", "*.parquet", "*.arrow") for one in path.rglob(ending))
    if not files:
        raise EmptyCorpus(f"{path}: holds no .jsonl, .parquet or .arrow file")
    return files


def _saved_dataset_files(path: Path) -> list[Path]:
    """The files that a saved dataset names, or all that are no caches where it names none."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        named = [path / str(one["filename"]) for one in state.get("_data_files", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRecord(f"{path}: state.json does not name the dataset's files") from error
    files = named or [one for one in sorted(path.glob("*.arrow")) if not one.name.startswith("cache-")]
    if not files or not all(one.is_file() and one.parent == path for one in files):
        raise InvalidRecord(f"{path}: the files of this saved dataset are missing")
    return files


def _raw_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Rows of one file with the place to name in an error; an unreadable row is handed on as its `InvalidRecord`."""
    if file.suffix in {".jsonl", ".json"}:
        yield from read_jsonl(file)
    elif file.suffix in {".parquet", ".arrow"}:
        yield from _read_arrow(file)
    else:
        raise InvalidRecord(
            f"{file}: unknown kind of file; a corpus is .jsonl, .parquet or a `datasets` folder"
        )


def read_jsonl(file: Path) -> Iterator[tuple[str, Any]]:
    """Decoded objects of a JSONL file, each with its place; a line that is no JSON is yielded as an `InvalidRecord`."""
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            if not line.strip():
                continue
            place = f"{file}, line {number}"
            try:
                yield place, json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield (
                    place,
                    InvalidRecord(f"not UTF-8 at byte {error.start} of the line; save the file as UTF-8"),
                )
            except json.JSONDecodeError as error:
                yield place, InvalidRecord(f"malformed JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield place, InvalidRecord("malformed JSON: nested too deep")
            except ValueError:  # an integer of thousands of digits
                yield place, InvalidRecord("malformed JSON: a number is too long")


def _read_arrow(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa  # noqa: PLC0415 - optional extra
    import pyarrow.parquet as pq  # noqa: PLC0415 - optional extra

    try:
        if file.suffix == ".parquet":
            batches = pq.ParquetFile(file).iter_batches(batch_size=1024)
        else:
            batches = iter(pa.ipc.open_stream(pa.memory_map(str(file))))
        number = 0
        for batch in batches:
            for content in batch.to_pylist():
                # dates become text and binary columns base64, so that every field can be stored as JSON
                yield f"{file}, row {number}", to_jsonable_python(content, bytes_mode="base64")
                number += 1
    except pa.ArrowInvalid as error:
        raise InvalidRecord(f"{file}: not a readable {file.suffix} file: {error}") from error
