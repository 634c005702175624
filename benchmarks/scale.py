"""What a bundle costs as its corpus grows: build by stage, sizes, opening, private memory, candidates, recall, one audit.

    python -m benchmarks.scale [--examples 1000,10000] [--read N] [--drivers hnsw,faiss] [--queries N] [--json]
    python -m benchmarks.scale --vectors 100000,1000000 [--source N] [--drivers faiss] [--json]
    python -m benchmarks.scale --texts 10000,1000000 [--json]

The rows are made of those of the tiny model's corpus (demo/tiny): each takes a row's conversation and puts drawn words of the corpus in place of a third of its words, so
no two are alike and words keep their frequencies. All of them go through the model, unless `--read N` says that only the first N do: the signals of further rows are then perturbed ones of
theirs (`scale_material.PerturbedPass`), and all stages behind the pass are those of a build. Build and worker are processes of their own;
their memory is the highest of `RssAnon` (private pages: no page cache, no mapped files), read twenty times a second, for the build by stage. The queries are made as the rows are, from other
draws. The first driver's bundle is built whole; that of a further one is the same with other indexes.

`--vectors` measures the index of projected vectors alone, where a full pass would take hours. A bundle of `--source` rows is built as above; further vectors are perturbed ones of
it, v_i + (v_j - v_k) / 2 with drawn i, j and k, then unit: differences of rows lie in the directions in which rows differ, so the spectrum stays. Queries are drawn in the same way.

`--texts` takes rows through the stages of a build that hold no number of the model: reading, rendering, BM25 and near-duplicates.
"""

import argparse
import gc
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.private_memory import highest_private_bytes, private_bytes
from benchmarks.program import command, named, numbers, run
from benchmarks.scale_material import TINY, PerturbedPass, Rows, corpus_of, perturbed, query_of
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.corpus_pass import read_here
from wherefrom.attribution.bundles.features import write_words
from wherefrom.attribution.bundles.indexes import INDEX, PROJECTED_VECTORS, IndexWishes, write_indexes
from wherefrom.attribution.bundles.manifest import MANIFEST, hash_file, read_card, read_manifest
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.bundles.rendering import ignore_note, render_corpus
from wherefrom.attribution.corpus import store_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.retrieval.candidates import Sought, find_candidates
from wherefrom.attribution.retrieval.index import ORIGINALS
from wherefrom.attribution.retrieval.index_drivers import DriverName, index_driver
from wherefrom.attribution.retrieval.index_recall import RECALL_AT, recall_of
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as text_table

_MIB = 1 << 20
#: Longest row and longest output, tokens.
_MAX_TOKENS = 512
#: Searches of `--vectors`.
_SEARCHES = 500
_COLUMNS = (
    Column("examples", 9),
    Column(" driver", 8, left=True),
    Column("build s", 8, ".0f"),
    Column("index s", 8, ".1f"),
    Column("build MiB", 10, ".0f"),
    Column("index MiB", 10, ".0f"),
    Column("bundle KiB/ex", 14, ".1f"),
    Column("index B/ex", 11, ".0f"),
    Column("hash s", 7, ".2f"),
    Column("open s", 7, ".2f"),
    Column("worker MiB", 11, ".0f"),
    Column("cand. p50 ms", 13, ".2f"),
    Column("cand. p99 ms", 13, ".2f"),
    Column("recall@100", 11, ".3f"),
    Column("audit ms", 9, ".1f"),
)


_INDEX_FIGURES = (
    "vectors",
    "driver",
    "build_s",
    "build_private_mib",
    "bytes_per_vector",
    "open_s",
    "opened_private_mib",
    "p50_ms",
    "p99_ms",
    "recall_at_100",
)
_INDEX_COLUMNS = (
    Column("vectors", 9, ",d"),
    Column("driver", 8, left=True),
    Column("build s", 8, ".0f"),
    Column("build MiB", 10, ".0f"),
    Column("B/vector", 9, ".0f"),
    Column("open s", 7, ".2f"),
    Column("held MiB", 9, ".0f"),
    Column("p50 ms", 7, ".2f"),
    Column("p99 ms", 7, ".2f"),
    Column("recall@100", 11, ".3f"),
)


_TEXT_COLUMNS = (
    Column("examples", 9, ",d"),
    Column("read s", 7, ".0f"),
    Column("render s", 9, ".0f"),
    Column("words s", 8, ".0f"),
    Column("read MiB", 9, ".0f"),
    Column("render MiB", 11, ".0f"),
    Column("words MiB", 10, ".0f"),
)


def build(corpus: Path, out: Path, driver: str, threads: int, *, read: int | None = None) -> dict[str, Any]:
    """Build a bundle, of whose rows the model reads all or the first `read`; its cost by stage and the highest private memory."""
    _set_threads(threads)
    options = BuildOptions(check_learning=False, index=IndexWishes(DriverName(driver)))
    started = time.monotonic()
    with highest_private_bytes() as private:
        build_bundle(
            folders=ModelFolders(TINY / "model"),
            corpus_path=corpus,
            out=out,
            options=options,
            progress=private.enter,
            read_corpus_by=read_here if read is None else PerturbedPass(read),
        )
        found = {"build_s": time.monotonic() - started, "private_mib": private.mib()}
    return found | {"stage_s": read_card(out)["cost"]["seconds"]} | _sizes(out)


def index_anew(source: Path, out: Path, driver: str, threads: int) -> dict[str, Any]:
    """Make the bundle `out` of another one with the indexes of another driver; what that costs."""
    _set_threads(threads)
    shutil.copytree(source, out, copy_function=os.link, ignore=shutil.ignore_patterns(INDEX, MANIFEST))
    parent, originals = read_manifest(source, verify=False), np.load(source / INDEX / ORIGINALS)
    started = time.monotonic()
    with highest_private_bytes() as private:
        private.enter("index", 0, 1)
        entry = write_indexes(out, originals, DriverName(driver))
        spent = time.monotonic() - started
    files = {name: one for name, one in parent.files.items() if not name.startswith(f"{INDEX}/")}
    files |= {f"{INDEX}/{one.name}": hash_file(one) for one in (out / INDEX).iterdir()}
    manifest = parent.model_copy(update={"index": entry, "files": files}).sealed()
    (out / MANIFEST).write_bytes(manifest.to_bytes())
    return {"private_mib": private.mib(), "stage_s": {"index": spent}} | _sizes(out)


def _sizes(out: Path) -> dict[str, Any]:
    """Bytes of a bundle by example, and what its indexes find."""
    card, manifest = read_card(out), read_manifest(out, verify=False)
    sizes = {one.suffix: one.stat().st_size for one in (out / INDEX).iterdir()}
    recall = {} if manifest.index is None else manifest.index.recall_at_100
    return {
        "bundle_bytes_per_example": card["cost"]["bytes_per_example"],
        "index_bytes_per_example": sum(sizes.values()) / manifest.corpus.examples,
        "recall_at_100": recall,
    }


def prepare(corpus: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Read and render a corpus and index its words, as a build does."""
    _set_threads(threads)
    renderer, spent = load_model(TINY / "model").renderer, {}
    with highest_private_bytes() as private:
        started = time.monotonic()
        rows = store_corpus(corpus, folder)
        spent["read corpus"] = time.monotonic() - started
        render_corpus(
            renderer,
            rows,
            folder,
            max_tokens=_MAX_TOKENS,
            skip_bad=False,
            on_note=ignore_note,
            progress=private.enter,
        )
        spent["render"] = time.monotonic() - started - sum(spent.values())
        private.enter("index words", 0, 1)
        write_words(folder)
        spent["index words"] = time.monotonic() - started - sum(spent.values())
        return {"stage_s": spent, "private_mib": private.mib()}


def audit(out: Path, queries: int, threads: int) -> dict[str, Any]:
    """Open a bundle as a worker does and ask it; times and the highest private memory."""
    _set_threads(threads)
    started = time.monotonic()
    read_manifest(out)
    hashed = time.monotonic() - started
    with highest_private_bytes() as private:
        started = time.monotonic()
        bundle = open_bundle(out, ModelFolders(TINY / "model"))
        attributor = LanguageAttributor(bundle)
        opened = time.monotonic() - started
        after_opening = private()
        drawn = Rows(seed=2)
        asked = [query_of(number, drawn.draw()) for number in range(queries + 5)]
        prepared = [attributor.prepare(one, max_tokens=_MAX_TOKENS, over_long="truncate") for one in asked]
        candidate_s, audit_s = [], []
        for one in prepared:
            started = time.perf_counter()
            read = attributor.signals([one])[0]
            between = time.perf_counter()
            attributor.score(read)
            ended = time.perf_counter()
            sought = Sought(read.signals.projected, read.signals.pooled, read.texts, read.signals.encoded)
            find_candidates(sought, bundle.indexes, count=bundle.manifest.parameters.candidates)
            candidate_s.append(time.perf_counter() - ended)
            audit_s.append((between - started, ended - between))
        highest = private()
    candidate_ms = 1000 * np.array(candidate_s[5:])  # the first few warm up
    pass_ms, score_ms = 1000 * np.median(np.array(audit_s[5:]), axis=0)
    return {
        "hash_s": hashed,
        "open_s": opened,
        "opened_private_mib": after_opening / _MIB,
        "worker_private_mib": highest / _MIB,
        "candidates_p50_ms": float(np.quantile(candidate_ms, 0.5)),
        "candidates_p99_ms": float(np.quantile(candidate_ms, 0.99)),
        "pass_ms": float(pass_ms),
        "score_ms": float(score_ms),
    }


def search(source: Path, folder: Path, driver: str, count: int) -> dict[str, Any]:
    """Build and search the index of many vectors that are made of a bundle's."""
    vectors = perturbed(np.load(source / "features" / PROJECTED_VECTORS, allow_pickle=False), folder, count)
    file, originals = folder / f"index-{count}-{driver}", np.arange(count, dtype=np.int64)
    made = index_driver(DriverName(driver))
    with highest_private_bytes() as private:
        started = time.monotonic()
        made.build(vectors, originals).save(file)
        built = {"build_s": time.monotonic() - started, "build_private_mib": private() / _MIB}
    gc.collect()
    before = private_bytes()
    started = time.monotonic()
    index = made.open(file, vectors, originals)
    opened, spent = time.monotonic() - started, []
    for query in vectors[np.random.default_rng(3).integers(0, count, _SEARCHES)]:
        started = time.perf_counter()
        index.search(query, RECALL_AT)
        spent.append(1000 * (time.perf_counter() - started))
    held = private_bytes() - before
    return built | {
        "open_s": opened,
        "opened_private_mib": held / _MIB,
        "bytes_per_vector": file.stat().st_size / count,
        "p50_ms": float(np.quantile(spent, 0.5)),
        "p99_ms": float(np.quantile(spent, 0.99)),
        "recall_at_100": recall_of(index, vectors),
    }


def work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each size and driver, in processes of their own."""
    drivers = named(arguments.drivers, ("hnsw", "faiss"), option="--drivers")
    threads = arguments.threads or 1
    if arguments.vectors:
        return {"indexes": indexes(arguments, folder, drivers, threads)}
    if arguments.texts:
        return {"texts": texts(arguments, folder, threads)}
    cases: list[dict[str, Any]] = []
    for examples in numbers(arguments.examples, option="--examples"):
        first = folder / f"bundle-{examples}-{drivers[0]}"
        for driver in drivers:
            out = folder / f"bundle-{examples}-{driver}"
            if out == first:
                grow = partial(build, read=arguments.read)
                built = apart(grow, corpus_of(examples, folder), out, driver, threads)
            else:
                built = apart(index_anew, first, out, driver, threads)
            served = apart(audit, out, arguments.queries, threads)
            cases.append({"examples": examples, "driver": driver} | built | served)
    return {"cases": cases}


def texts(arguments: argparse.Namespace, folder: Path, threads: int) -> list[dict[str, Any]]:
    """Corpora of some sizes without a model, each in a process of its own."""
    found = []
    for examples in numbers(arguments.texts, option="--texts"):
        home = folder / f"texts-{examples}"
        home.mkdir()
        found.append({"examples": examples} | apart(prepare, corpus_of(examples, folder), home, threads))
        shutil.rmtree(home)
    return found


def indexes(
    arguments: argparse.Namespace, folder: Path, drivers: Sequence[str], threads: int
) -> list[dict[str, Any]]:
    """Indexes of many vectors, each in a process of its own."""
    source = folder / "source"
    apart(build, corpus_of(arguments.source, folder), source, "hnsw", threads)
    return [
        {"vectors": count, "driver": driver} | apart(search, source, folder, driver, count)
        for count in numbers(arguments.vectors, option="--vectors")
        for driver in drivers
    ]


def apart(task: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """Run something in a process of its own, so that its memory is its own too."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(task, given)
    return found


def table(result: dict[str, Any]) -> list[str]:
    """The figures as lines."""
    if "texts" in result:
        return text_table(
            _TEXT_COLUMNS,
            [
                [
                    one["examples"],
                    *one["stage_s"].values(),
                    *(one["private_mib"][name] for name in one["stage_s"]),
                ]
                for one in result["texts"]
            ],
        )
    if "indexes" in result:
        return text_table(
            _INDEX_COLUMNS, [[one[name] for name in _INDEX_FIGURES] for one in result["indexes"]]
        )
    return text_table(
        _COLUMNS,
        [
            (
                f"{one['examples']:,}",
                one["driver"],
                one.get("build_s"),
                one["stage_s"]["index"],
                max((seen for stage, seen in one["private_mib"].items() if stage != "index"), default=None),
                one["private_mib"]["index"],
                one["bundle_bytes_per_example"] / 1024,
                one["index_bytes_per_example"],
                one["hash_s"],
                one["open_s"],
                one["worker_private_mib"],
                one["candidates_p50_ms"],
                one["candidates_p99_ms"],
                min(one["recall_at_100"].values()),
                one["pass_ms"] + one["score_ms"],
            )
            for one in result["cases"]
        ],
    )


def _set_threads(threads: int) -> None:
    import torch  # noqa: PLC0415 - in the process that computes

    torch.set_num_threads(threads)


def main() -> None:
    """Entry point."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--examples", default="1000,10000", help="sizes of the corpus (default: %(default)s)")
    parser.add_argument("--read", type=int, help="rows that the model reads (default: all)")
    parser.add_argument("--texts", help="sizes of a corpus without a model, in place of whole bundles")
    parser.add_argument("--vectors", help="sizes of an index alone, in place of whole bundles")
    parser.add_argument(
        "--source", type=int, default=2000, help="rows that they are made of (default: %(default)s)"
    )
    parser.add_argument("--drivers", default="hnsw,faiss", help="index drivers (default: %(default)s)")
    parser.add_argument(
        "--queries", type=int, default=100, help="outputs that are asked (default: %(default)s)"
    )
    run(parser, work, table=table)


if __name__ == "__main__":
    main()
