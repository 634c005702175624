"""What erasing and adding training examples costs, and what it does to answers, on the tiny model.

    python -m benchmarks.erasure                        # the tiny model's corpus, and 20,000 clustered vectors
    python -m benchmarks.erasure --vectors 100000

Erasing: a fifth of the rows goes. Seconds beside those of a whole build; recall@100 of the new graph against exact search over the vectors that stay, on the tiny model and on clustered vectors, 128 wide.
Adding: bundles over a part of the corpus get the rest added, and are compared with a build over all of it: seconds, rank correlation of the influence of all rows, and how many of the ten strongest are the same.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, report, run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.adding import add_examples
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.erasing import forget_examples
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.progress import silent
from wherefrom.attribution.retrieval.index import unit_rows
from wherefrom.attribution.retrieval.index_drivers import DriverName, index_driver
from wherefrom.attribution.retrieval.index_recall import RECALL_AT, recall_of
from wherefrom.evaluation.cost import timed

Vectors = npt.NDArray[np.float32]

TINY = Path(__file__).parents[1] / "demo" / "tiny"
#: Share of the rows that goes, and shares that are added to a bundle.
ERASED = 0.2
ADDED = (0.1, 0.2, 0.4)
WIDTH, CLUSTERS = 128, 200


def clustered(count: int) -> Vectors:
    """Unit vectors around random centres, as features of a corpus with many topics are."""
    drawn = np.random.default_rng(5)
    centres = drawn.normal(size=(CLUSTERS, WIDTH))
    points = centres[drawn.integers(0, CLUSTERS, count)] + 0.6 * drawn.normal(size=(count, WIDTH))
    return unit_rows(points.astype(np.float32))


def clustered_recall(count: int) -> dict[str, float]:
    """Recall before and after a fifth of clustered vectors was erased, and seconds of the new graph."""
    vectors = clustered(count)
    kept = np.sort(np.random.default_rng(6).permutation(count)[: round(count * (1 - ERASED))])
    driver = index_driver(DriverName.HNSW)
    before = driver.build(vectors, np.arange(count))
    after, seconds = timed(lambda: driver.build(vectors[kept], np.arange(len(kept))))
    return {
        "before": recall_of(before, vectors),
        "after": recall_of(after, vectors[kept]),
        "seconds": seconds,
    }


def build(corpus: Path, out: Path) -> None:
    """A bundle of the tiny model."""
    build_bundle(
        folders=ModelFolders(TINY / "model"),
        corpus_path=corpus,
        out=out,
        options=BuildOptions(check_learning=False),
        progress=silent,
    )


def opened(bundle: Path) -> Bundle:
    """A bundle of the tiny model, with its graphs."""
    return open_bundle(bundle, ModelFolders(TINY / "model"))


def influences(bundle: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Influence of each training example, by id, on every query of the tiny model."""
    held = opened(bundle)
    attributor = LanguageAttributor(held)
    queries, _ = read_queries(TINY / "queries.jsonl")
    prepared = prepare_all(attributor, queries, max_tokens=512, over_long="truncate")
    scores = exact_scores(held, signals_of_all(attributor, prepared), silent)
    return {one.example_id: scores[:, row] for row, one in enumerate(iter_examples(bundle))}


def agreement(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Mean over queries of the rank correlation over all rows, and of the share of the ten strongest that both have."""
    names = sorted(one)
    left, right = (np.stack([side[name] for name in names], axis=1) for side in (one, other))  # [Q, N]
    ranks = [side.argsort(axis=1).argsort(axis=1).astype(np.float64) for side in (left, right)]
    correlated = [np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]
    best = [side.argsort(axis=1)[:, -10:] for side in (left, right)]
    same = [len(set(a.tolist()) & set(b.tolist())) / 10 for a, b in zip(*best, strict=True)]
    return {"rank_correlation": float(np.mean(correlated)), "same_ten": float(np.mean(same))}


def erase(whole: Path, folder: Path, before: dict[str, Any]) -> dict[str, Any]:
    """Erase a fifth of the rows of a bundle, whose rows had these influences."""
    examples = list(iter_examples(whole))
    gone = np.random.default_rng(8).permutation(len(examples))[: round(len(examples) * ERASED)]
    texts = {examples[row].text_sha256 for row in gone}
    ids = [one.example_id for one in examples if one.text_sha256 in texts]
    _, seconds = timed(lambda: forget_examples(whole, folder / "erased", ids))
    old, new = opened(whole), opened(folder / "erased")
    kept = [row for row, one in enumerate(examples) if one.text_sha256 not in texts]
    after = influences(folder / "erased")
    return {
        "rows": len(examples),
        "erased": len(ids),
        "seconds": seconds,
        "recall": recall_of(new.index, unit_rows(np.asarray(old.vectors))[kept]),
        "recall_similarity": recall_of(new.similarity, np.asarray(old.pooled)[kept]),
    } | agreement({name: before[name] for name in after}, after)


def add(lines: list[str], share: float, folder: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """A bundle over the first rows that gets the others."""
    first = round(len(lines) * (1 - share))
    parts = [folder / f"first-{share}.jsonl", folder / f"rest-{share}.jsonl"]
    for file, some in zip(parts, (lines[:first], lines[first:]), strict=True):
        file.write_text("\n".join(some) + "\n", encoding="utf-8")
    base, grown = folder / f"base-{share}", folder / f"grown-{share}"
    build(parts[0], base)
    made, seconds = timed(
        lambda: add_examples(base, parts[1], grown, folders=ModelFolders(TINY / "model"), progress=silent)
    )
    derived = made.derived
    changed = 0.0 if derived is None else derived.changed_share
    return {"share_of_all": share, "changed_share": changed, "seconds": seconds} | agreement(
        whole, influences(grown)
    )


def work(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All of it."""
    lines = (TINY / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [lines[row] for row in np.random.default_rng(9).permutation(len(lines))]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, seconds = timed(lambda: build(corpus, folder / "whole"))
    report([f"built {len(lines)} rows in {seconds:.1f} s"])
    whole = influences(folder / "whole")
    figures: dict[str, Any] = {"build_seconds": seconds, "erased": erase(folder / "whole", folder, whole)}
    report([str(figures["erased"])])
    figures["clustered"] = clustered_recall(arguments.vectors)
    report([str(figures["clustered"])])
    figures["added"] = []
    for share in ADDED:
        figures["added"].append(add(lines, share, folder, whole))
        report([_added(figures["added"][-1])])
    return figures


def table(figures: dict[str, Any]) -> list[str]:
    """The figures for people."""
    gone, clouds = figures["erased"], figures["clustered"]
    erased = f"recall@{RECALL_AT} {gone['recall']:.3f} projected, {gone['recall_similarity']:.3f} similarity"
    others = f"rank correlation {gone['rank_correlation']:.4f}, same ten {gone['same_ten']:.3f}"
    new_graph = f"recall@{RECALL_AT} {clouds['before']:.3f} before, {clouds['after']:.3f} after; new graph in {clouds['seconds']:.1f} s"
    return [
        f"whole build: {figures['build_seconds']:.1f} s for {gone['rows']} rows",
        f"erased {gone['erased']} rows in {gone['seconds']:.1f} s: {erased}; influence of the others: {others}",
        f"clustered vectors, a fifth erased: {new_graph}",
        *map(_added, figures["added"]),
    ]


def _added(one: dict[str, Any]) -> str:
    return (
        f"added {one['changed_share']:.0%} of the rows of the statistics in {one['seconds']:.1f} s: "
        f"rank correlation {one['rank_correlation']:.4f}, same ten {one['same_ten']:.3f}"
    )


def main() -> None:
    """The command."""
    parser = command(__doc__, threads=1)
    parser.add_argument(
        "--vectors", type=int, default=20_000, help="clustered vectors (default: %(default)s)"
    )
    run(parser, work, table=table)


if __name__ == "__main__":
    main()
