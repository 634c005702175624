"""What opening a bundle of many rows costs, by part: hashing, hashes that are remembered, the model, graphs, words, the rest.

    python -m benchmarks.opening [--examples 100000,1000000] [--source N] [--words N] [--json]

A bundle of `--source` rows of the tiny model is built, and hollow ones of many rows are made of it: every array of rows has the wanted length and is empty (a sparse file), each
graph of HNSW has all its vectors and no links, BM25 knows `--words` words. What opening reads is there; what only queries read is not. So the bundles open, answer
nothing, and cost little to make. A part that is linear in rows shows as seconds that grow tenfold.

Graphs without links read as many bytes as real ones: hnswlib keeps room for all links of the lowest level. Seconds are those of the clock and, behind the slash, of the processor; the
modules are imported before.
"""

import argparse
import json
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, numbers, run
from benchmarks.scale import apart, build
from benchmarks.scale_material import TINY, corpus_of
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.examples import EXAMPLE_OFFSETS, EXAMPLES
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.bundles.indexes import INDEX, PROJECTED, SIMILARITY, IndexOpener
from wherefrom.attribution.bundles.manifest import MANIFEST, hash_folder, read_manifest
from wherefrom.attribution.bundles.row_arrays import PER_ROW, RUNS
from wherefrom.attribution.groups import GROUPS
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.retrieval.index import ORIGINALS
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as text_table

#: Entries of BM25, and bytes of text, for each row.
_ENTRIES, _TEXT_BYTES = 40, 200
#: The head of hnswlib's files: sizes and places in bytes; the second and third number count vectors.
_HEAD = struct.Struct("<QQQQQQiIQQQdQ")
_CHUNK = 50_000
_PARTS = ("hash", "remembered", "model", "graphs", "words", "rest")
_COLUMNS = (Column("examples", 10, ",d"), Column("GB", 6, ".1f"), *(Column(f"{one} s", 16) for one in _PARTS))


class Stopwatch:
    """Seconds by part: of the clock, and of the processor over all threads."""

    def __init__(self) -> None:
        self.spent: dict[str, tuple[float, float]] = {}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """Count what passes within the block."""
        clock, processor = time.monotonic(), time.process_time()
        yield
        self.spent[part] = (time.monotonic() - clock, time.process_time() - processor)


def hollow(source: Path, out: Path, count: int, *, words: int) -> None:
    """Make a hollow bundle of `count` rows of a bundle with the driver `hnsw`."""
    of_rows = {
        *PER_ROW,
        *(name for runs in RUNS for name in (runs.offsets, *runs.values)),
        EXAMPLES,
        EXAMPLE_OFFSETS,
        GROUPS,
    }
    for name in read_manifest(source).files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if name not in of_rows and not name.startswith(("index/", "lexical/")):
            shutil.copyfile(source / name, out / name)
    for name in filter(lambda one: (source / one).is_file(), PER_ROW):
        _empty(source / name, out / name, count)
    for runs in filter(lambda one: (source / one.offsets).is_file(), RUNS):
        each = int(np.load(source / runs.offsets, mmap_mode="r")[-1]) // len(
            np.load(source / GROUPS, mmap_mode="r")
        )
        np.save(out / runs.offsets, np.arange(count + 1, dtype=np.int64) * each)
        for name in filter(lambda one: (source / one).is_file(), runs.values):
            _empty(source / name, out / name, count * each)
    np.save(out / EXAMPLE_OFFSETS, np.arange(count + 1, dtype=np.int64) * _TEXT_BYTES)
    with (out / EXAMPLES).open("wb") as texts:
        texts.truncate(count * _TEXT_BYTES)
    np.save(out / GROUPS, np.arange(count, dtype=np.int32))
    np.save(out / INDEX / ORIGINALS, np.arange(count, dtype=np.int64))
    for file in (source / INDEX).glob("*.hnsw"):
        _write_graph(file, out / INDEX / file.name, count)
    _write_words(source / "lexical", out / "lexical", count, words)
    manifest = read_manifest(source)
    corpus = manifest.corpus.model_copy(update={"examples": count})
    sealed = manifest.model_copy(update={"corpus": corpus, "files": hash_folder(out)}).sealed()
    (out / MANIFEST).write_bytes(sealed.to_bytes())


def _empty(source: Path, target: Path, count: int) -> None:
    """An array as another one with so many rows, of zeros that take no room on the disk."""
    shape, dtype = _shape_of(source)
    np.lib.format.open_memmap(target, mode="w+", dtype=dtype, shape=(count, *shape[1:])).flush()


def _shape_of(file: Path) -> tuple[tuple[int, ...], npt.DTypeLike]:
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    return array.shape, array.dtype


def _write_graph(source: Path, target: Path, count: int) -> None:
    """A graph as another one, with so many vectors and no links."""
    with source.open("rb") as file:
        head = list(_HEAD.unpack(file.read(_HEAD.size)))
    size, label_at = int(head[3]), int(head[4])
    head[1:3], head[6:8] = [count, count], [0, 0]  # vectors; the highest level, and where a search begins
    with target.open("wb") as file:
        file.write(_HEAD.pack(*head))
        for first in range(0, count, _CHUNK):
            part = np.zeros((min(_CHUNK, count - first), size), dtype=np.uint8)
            labels = np.arange(first, first + len(part), dtype=np.uint64)
            part[:, label_at : label_at + 8] = labels.view(np.uint8).reshape(-1, 8)
            file.write(part.tobytes())
        file.write(bytes(4 * count))  # links of higher levels: none


def _write_words(source: Path, target: Path, count: int, words: int) -> None:
    target.mkdir(exist_ok=True)
    for file in source.iterdir():
        match file.name.partition(".")[0]:
            case "vocab":
                (target / file.name).write_text(json.dumps({f"word{one}": one for one in range(words)}))
            case "params":
                content = json.loads(file.read_text()) | {"num_docs": count}
                (target / file.name).write_text(json.dumps(content))
            case "indptr":
                starts = np.linspace(0, count * _ENTRIES, words + 1)
                np.save(target / file.name, starts.astype(_shape_of(file)[1]))
            case _:
                _empty(file, target / file.name, count * _ENTRIES)


def measure(out: Path, memory: Path, threads: int) -> dict[str, Any]:
    """Open a hollow bundle, part by part and as a whole."""
    import bm25s  # noqa: PLC0415, F401 - in the process that measures, before the clock runs
    import torch  # noqa: PLC0415 - the same

    torch.set_num_threads(threads)
    model, watch = ModelFolders(TINY / "model"), Stopwatch()
    load_model(model.model, None)
    with watch.of("hash"):
        manifest = read_manifest(out, hashes=HashMemory(memory, afresh=True))
    with watch.of("remembered"):
        read_manifest(out, hashes=HashMemory(memory))
    with watch.of("model"):
        load_model(model.model, None)
    indexes = IndexOpener(out, manifest, milvus=None, exact=False)
    with watch.of("graphs"):
        for name in (PROJECTED, SIMILARITY):
            indexes.open(name)
    with watch.of("words"):
        LexicalIndex.load(out / "lexical")
    with watch.of("open"):
        open_bundle(out, model, hashes=HashMemory(memory))
    whole = watch.spent["open"]
    known = ("remembered", "model", "graphs", "words")
    rest = tuple(max(0.0, whole[at] - sum(watch.spent[one][at] for one in known)) for at in (0, 1))
    size = sum(entry.bytes for entry in manifest.files.values())
    return {"bytes": size, "seconds": {**watch.spent, "rest": rest}}


def work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each size in a process of its own."""
    source, threads = folder / "source", arguments.threads or 1
    apart(build, corpus_of(arguments.source, folder), source, "hnsw", threads)
    cases = []
    for count in numbers(arguments.examples, option="--examples"):
        out = folder / f"hollow-{count}"
        hollow(source, out, count, words=arguments.words)
        time.sleep(3)  # what changed within two seconds is not remembered
        cases.append({"examples": count} | apart(measure, out, folder / f"hashes-{count}", threads))
        shutil.rmtree(out)
    return {"cases": cases}


def table(result: dict[str, Any]) -> list[str]:
    """The figures as lines."""
    return text_table(
        _COLUMNS,
        [
            (one["examples"], one["bytes"] / 1e9, *(_seconds(one["seconds"][part]) for part in _PARTS))
            for one in result["cases"]
        ],
    )


def _seconds(spent: tuple[float, float]) -> str:
    return f"{spent[0]:.2f} / {spent[1]:.2f}"


def main() -> None:
    """Entry point."""
    parser = command(__doc__, threads=1)
    parser.add_argument(
        "--examples", default="100000,1000000", help="rows of the bundles (default: %(default)s)"
    )
    parser.add_argument(
        "--source",
        type=int,
        default=300,
        help="rows of the bundle that they are made of (default: %(default)s)",
    )
    parser.add_argument(
        "--words", type=int, default=300_000, help="words that BM25 knows (default: %(default)s)"
    )
    run(parser, work, table=table)


if __name__ == "__main__":
    main()
