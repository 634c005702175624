"""Which files of a path are the training corpus: one file, a saved dataset, or a folder whose files may belong to several splits.

Where a folder holds several splits only `train` is read, since nothing else was trained on; which files were left alone is told. Splits are told by the names that
model hubs use: `data/train-00000-of-00001.parquet`, `train.jsonl` beside `valid.jsonl`, folders named `train` and `test`, or a saved `DatasetDict`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wherefrom.errors import ConfigurationError, EmptyCorpus, InvalidRecord
from wherefrom.json_text import read_json

#: Endings of compressed text files.
PACKED = (".gz", ".bz2", ".zst")
#: Kinds of files of a folder; the second are looked at only where there is none of the first.
_FIRST = (".jsonl", ".ndjson", ".parquet", ".arrow")
_SECOND = (".json", ".csv", ".tsv")
KINDS = (*_FIRST, *_SECOND)
#: JSON files that describe a dataset and hold no row of it.
_ABOUT = frozenset(
    {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
)
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("eval", "evaluation", "heldout", "holdout"), "eval"),
}
_SHARD = re.compile(r"^(?P<split>\w+?)-\d{5}-of-\d{5}(?:-\w+)?$")
_WORD = re.compile(r"[-._ ]+")


@dataclass(frozen=True)
class CorpusFiles:
    """The files to read, in order, and what to tell about them."""

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
    #: Name of the split that they belong to; "" where there is none.
    split: str = ""


def kind_of(file: Path) -> str:
    """Ending of a file without that of its compression, in lower case."""
    name = file.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def corpus_files(path: Path, *, split: str | None) -> CorpusFiles:
    """The files of a corpus.

    Raises:
        InvalidRecord: there is no such path, or several splits and none of them is `train`.
        ConfigurationError: the split that was asked for is not there.
        EmptyCorpus: the folder holds no file of a known kind.
    """
    if path.is_file():
        if split is not None:
            raise ConfigurationError(f"--split {split}: {path} is a single file; --split needs a folder")
        return CorpusFiles((path,))
    if not path.is_dir():
        raise InvalidRecord(f"{path}: corpus file or folder not found")
    if (path / "dataset_dict.json").is_file():
        return _saved_split(path, split)
    if (path / "state.json").is_file():  # a saved dataset names its own files; others beside it are caches
        if split is not None:
            raise ConfigurationError(f"--split {split}: {path} is a saved dataset without splits")
        return CorpusFiles(tuple(_saved_dataset(path)))
    return _chosen(path, _by_split(path, _data_files(path)), split)


def _data_files(path: Path) -> list[Path]:
    """Files of the first kind that there is, in the order of their names; hidden ones are left alone."""
    every = [
        one
        for one in sorted(path.rglob("*"))
        if one.is_file()
        and one.name not in _ABOUT
        and not any(part.startswith((".", "__")) for part in one.relative_to(path).parts)
    ]
    for kinds in (_FIRST, _SECOND):
        found = [one for one in every if kind_of(one) in kinds]
        if found:
            return found
    raise EmptyCorpus(f"{path}: holds no .jsonl, .parquet or .arrow file, and no .json, .csv or .tsv file")


def _by_split(path: Path, files: Iterable[Path]) -> dict[str, list[Path]]:
    """Files by the name of their split; "" where a name tells none."""
    found: dict[str, list[Path]] = {}
    for file in files:
        found.setdefault(_split_of(file.relative_to(path)), []).append(file)
    return found


def _split_of(file: Path) -> str:
    stem = file.name.split(".")[0]
    shard = _SHARD.match(stem)
    if shard:
        return _SPLITS.get(shard["split"].lower(), shard["split"])
    for part in (file.name, *reversed(file.parts[:-1])):
        for word in _WORD.split(part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def _chosen(path: Path, splits: dict[str, list[Path]], split: str | None) -> CorpusFiles:
    """The files of the split that was trained on, or that was asked for."""
    if not splits:
        raise EmptyCorpus(f"{path}: holds no split with data")
    name = _asked(path, splits, split) if split is not None else _trained(path, splits)
    others = ", ".join(
        f"`{other}` ({_files(found)})" if other else _files(found)
        for other, found in sorted(splits.items())
        if other != name
    )
    if not others and name in {"", "train"}:
        return CorpusFiles(tuple(splits[name]), split=name)
    what = f"the split `{name}`" if name else "the files of no split"
    note = f"Read {what} of {path} ({_files(splits[name])}){f'; left alone: {others}' if others else ''}."
    return CorpusFiles(tuple(splits[name]), (note,), name)


def _asked(path: Path, splits: dict[str, list[Path]], split: str) -> str:
    name = next((one for one in (split, _SPLITS.get(split.lower(), split)) if one in splits), None)
    if name is None:
        known = ", ".join(sorted(filter(None, splits))) or "none"
        raise ConfigurationError(f"--split {split}: {path} does not have it; it has {known}")
    return name


def _trained(path: Path, splits: dict[str, list[Path]]) -> str:
    """The split that was trained on: the only one, `train`, the only one that begins so, or files of no split."""
    if len(splits) == 1:
        return next(iter(splits))
    if "train" in splits:
        return "train"
    trains = [name for name in splits if name.lower().startswith("train")]
    if len(trains) == 1:
        return trains[0]
    if "" in splits and not trains:
        return ""
    names = ", ".join(sorted(filter(None, splits)))
    raise InvalidRecord(
        f"{path}: holds several splits ({names}); name the split that was trained on (--split), or give its folder"
    )


def _files(files: list[Path]) -> str:
    return f"{len(files)} file{'' if len(files) == 1 else 's'}"


def _saved_split(path: Path, split: str | None) -> CorpusFiles:
    """The files of one split of a saved `DatasetDict`."""
    folders = {one.name: one for one in sorted(path.iterdir()) if (one / "state.json").is_file()}
    chosen = _chosen(path, {name: [*one.glob("*.arrow")] for name, one in folders.items()}, split)
    return CorpusFiles(tuple(_saved_dataset(folders[chosen.split])), chosen.notes, chosen.split)


def _saved_dataset(path: Path) -> list[Path]:
    """The files that a saved dataset names, or all that are no caches where it names none."""
    try:
        state = read_json((path / "state.json").read_text(encoding="utf-8"))
        named = [path / str(one["filename"]) for one in state.get("_data_files", [])]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidRecord(f"{path}: state.json does not name the dataset's files") from error
    files = named or [one for one in sorted(path.glob("*.arrow")) if not one.name.startswith("cache-")]
    if not files or not all(one.is_file() and one.parent == path for one in files):
        raise InvalidRecord(f"{path}: the files of this saved dataset are missing")
    return files
