"""Are citations of the deep model true? Trains the adapter again without the cited row and measures what the outputs' losses do.

    python -m benchmarks.deep_bank.citations --work DIR [--seeds 0,1,2] [--collect | --report] [--json]

Fixed before anything was scored or measured: which queries, drawn by a seed from the half to report on. Their first citation of the order shown, and BM25's first
where it is another row, are written to `citations.json`. One training leaves out one row and measures all queries. For each citation the trainings without unrelated
rows (of another subject or source, cited for other queries or for none) are the controls, so the noise of a base run cancels. Trainings are kept in DIR, and the
command goes on where it was stopped. The same citations are also measured by the bank's halves (`halved`), which takes no training. `--collect` takes what is finished by now, `--report` reads what is committed.
"""

import argparse
import json
import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.effects import Effect, effect_by_t, summary
from benchmarks.deep_bank.halved import HalvedQuery
from benchmarks.deep_bank.material import (
    FOLDER,
    RECIPE,
    BankQuery,
    bank_sha256,
    read_bank_queries,
    read_plan,
    read_rows,
)
from benchmarks.deep_bank.scores import Bench, all_scores, asked_queries
from benchmarks.deep_bank.signs import finished_pairs, losses_of_all, share
from benchmarks.deep_bank.train import load_losses
from benchmarks.program import command, numbers, report, run
from benchmarks.work_folder import claim_folder, kept_scores, save_arrays
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.atomic import write_text
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import attribute_all, prepare_all
from wherefrom.attribution.progress import silent
from wherefrom.attribution.ranking_metrics import Matrix, spearman_rows
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines
from wherefrom.retraining.effects import LEAST_CONTROLS
from wherefrom.retraining.runs import RunFolder
from wherefrom.retraining.training import token_rows

#: Queries whose first citations are measured, rows left out that nothing cites, and the seed of both draws.
QUERIES, CONTROLS, DRAW_SEED = 16, 4, 20_261_127
SEEDS = (0, 1, 2)
#: Of all pairs of a query and a row, effects from this z on are held against the scores.
CLEAR_Z = 3.0
CHOSEN, REFITS = FOLDER / "citations.json", FOLDER / "refits.npz"
#: Scores whose signs and sizes are compared with what was measured.
METHODS = ("adapter", "adapter, order shown", "activation", "bm25")


@dataclass(frozen=True)
class Chosen:
    """The first citations of a query."""

    query: int
    shown: int
    bm25: int


@dataclass(frozen=True)
class Refits:
    """Losses of all queries under each finished training, and the scores that were to tell their change."""

    #: Row that each training leaves out, `[G]`.
    rows: tuple[int, ...]
    #: `[S, G, Q]` of the seeds under which a training is finished, nats per completion token; NaN where it is not.
    losses: npt.NDArray[np.float64]
    #: By method, `[Q, G]`.
    scores: Mapping[str, Matrix]
    #: `[Q]` under the model of all rows.
    loss_of_all: npt.NDArray[np.float32]


def main() -> None:
    """Choose, train what is missing, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--work", type=Path, help="folder of the adapter, its bundle and finished trainings")
    parser.add_argument(
        "--seeds", default="0,1,2", help="seeds of order and first weights (default: %(default)s)"
    )
    parser.add_argument(
        "--collect", action="store_true", help="train nothing; bring finished trainings into refits.npz"
    )
    parser.add_argument("--report", action="store_true", help="train nothing; read refits.npz")
    run(parser, _measure, table=table)


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    if not arguments.report:
        if arguments.work is None:
            raise ConfigurationError("--work is needed but for --report")
        if not arguments.collect:
            train(arguments.work, numbers(arguments.seeds, option="--seeds"))
        collect(arguments.work)
    return figures(load(), choose(arguments.work), read_bank_queries(read_rows()))


def choose(work: Path | None = None) -> list[Chosen]:
    """The citations to measure; drawn once, then read.

    Raises:
        ConfigurationError: none were drawn, and there is no work folder to draw them with.
    """
    if not CHOSEN.is_file():
        if work is None:
            raise ConfigurationError(f"{CHOSEN} is missing; give --work")
        write_text(CHOSEN, json.dumps(_draw(work), indent=1) + "\n")
    return [Chosen(**one) for one in json.loads(CHOSEN.read_text(encoding="utf-8"))["citations"]]


def uncited_rows() -> list[int]:
    """Rows left out as controls, which are nobody's first citation."""
    found: list[int] = json.loads(CHOSEN.read_text(encoding="utf-8"))["uncited"]
    return found


def _draw(work: Path) -> dict[str, Any]:
    rows = read_rows()
    queries = read_bank_queries(rows)
    random = np.random.default_rng(DRAW_SEED)
    drawn = random.permutation(read_plan().queries_of("report", len(queries)))[:QUERIES].tolist()
    shown = first_shown(work)
    bm25 = all_scores(work, variants=False)["bm25"].argmax(axis=1)
    citations = [{"query": query, "shown": shown[query], "bm25": int(bm25[query])} for query in drawn]
    first = {*shown, *bm25.tolist()}
    uncited = random.permutation([row for row in range(len(rows)) if row not in first])[:CONTROLS].tolist()
    return {"citations": citations, "uncited": uncited}


def first_shown(work: Path) -> list[int]:
    """The first row of the order shown for every query, as an auditor sees it."""
    attributor = LanguageAttributor(Bench(work).bundle("adapter"))
    asked = prepare_all(attributor, asked_queries(), max_tokens=RECIPE.max_tokens, over_long="truncate")
    answers = attribute_all(attributor, asked, top_k=1, opponents=0, progress=silent)
    return [one.citations[0].example.row for one in answers]


def left_out(chosen: Sequence[Chosen]) -> list[int]:
    """Every row that a training leaves out, in the order of the citations; those that nothing cites come last."""
    cited = [row for one in chosen for row in (one.shown, one.bm25)]
    return list(dict.fromkeys([*cited, *uncited_rows()]))


def refits_of(work: Path) -> tuple[RunFolder, list[TokenRow]]:
    """The folder of trainings without some rows, and the queries that each of them measures."""
    claim_folder(work / "refits", "bank.sha256", bank_sha256(), holds="trainings of another bank")
    corpus = read_rows()
    language = load_model(ensure_base_model(default_cache()))
    rows, asked = (
        token_rows(language, some, max_tokens=RECIPE.max_tokens)
        for some in (corpus, [one.row for one in read_bank_queries(corpus)])
    )
    return RunFolder(work / "refits", language=language, rows=rows, recipe=RECIPE, keep_models=False), asked


def train(work: Path, seeds: Sequence[int]) -> None:
    """Train what the folder lacks, each training measuring all queries."""
    chosen = choose(work)
    runs, asked = refits_of(work)
    groups = [(row,) for row in left_out(chosen)]
    report([f"{len(groups)} trainings for each of seeds {list(seeds)}; {len(chosen)} queries"])
    runs.losses(asked, groups, seeds=seeds, progress=lambda done, total: report([f"{done} of {total}"]))


def collect(work: Path) -> None:
    """Bring the finished trainings and the scores of their rows into the committed file."""
    rows = left_out(choose(work))
    runs, asked = refits_of(work)
    losses = np.full((len(SEEDS), len(rows), len(asked)), np.nan)
    for place, row in enumerate(rows):
        for seed in runs.trained_seeds([(row,)], seeds=SEEDS):
            losses[SEEDS.index(seed), place] = runs.losses(asked, [(row,)], seeds=[seed]).losses[0, 0]
    done = [place for place in range(len(rows)) if np.isfinite(losses[:, place]).any()]
    scores = all_scores(work, variants=False)
    every = kept_scores(work, {"losses": lambda: {"all rows": losses_of_all(work)}})
    arrays = {f"score.{name}": scores[name][:, [rows[place] for place in done]] for name in METHODS}
    save_arrays(
        REFITS,
        {
            "bank_sha256": bank_sha256(),
            "rows": np.array([rows[place] for place in done]),
            "losses": losses[:, done],
            "loss_of_all": every["all rows"][0],
            **arrays,
        },
    )
    report(
        [
            f"{REFITS.name}: {int(np.isfinite(losses[:, :, 0]).sum())} trainings without one row, of {len(SEEDS) * len(rows)}"
        ]
    )


def load() -> Refits:
    """The committed trainings.

    Raises:
        ConfigurationError: there are none, or they belong to another bank.
    """
    arrays = committed(REFITS)
    scores = {name: arrays[f"score.{name}"] for name in METHODS}
    return Refits(tuple(arrays["rows"].tolist()), arrays["losses"], scores, arrays["loss_of_all"])


def committed(file: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a committed file of this bank.

    Raises:
        ConfigurationError: there is none, or it belongs to another bank.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file} is missing; run without --report")
    with np.load(file, allow_pickle=False) as content:
        arrays = {name: content[name] for name in content.files}
    if str(arrays["bank_sha256"]) != bank_sha256():
        raise ConfigurationError(f"{file} belongs to other rows, queries or recipe")
    return arrays


def effect_of(refits: Refits, *, row: int, query: int, related: Container[int]) -> Effect | None:
    """The effect of a row on a query, beside the trainings without unrelated rows; None where fewer than three seeds' worth of them are finished.

    The difference of means, with Student's t over controls: a control's mean over its seeds counts once.

    Args:
        refits: all trainings.
        row: the row that was left out.
        query: the query.
        related: rows that are no controls of this query.
    """
    own = refits.losses[:, refits.rows.index(row), query]  # [S]
    seeds = np.isfinite(own)
    others = [place for place, one in enumerate(refits.rows) if one != row and one not in related]
    table = refits.losses[seeds][:, others, query].T  # [K, S]
    table = table[np.isfinite(table).all(axis=1)]
    if len(table) < LEAST_CONTROLS:
        return None
    means = table.mean(axis=1)
    nats = float(own[seeds].mean() - means.mean())
    error = float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(means))
    return effect_by_t(nats, error, len(means) - 1)


def figures(refits: Refits, chosen: Sequence[Chosen], queries: Sequence[BankQuery]) -> dict[str, Any]:
    """Share that stands out, signs, and agreement of scores with what was measured, by refits and by the bank's halves."""
    sources = [row.source for row in read_rows()]
    #: Rows of each query's own subject or source, which are no controls of it.
    related = [{row for row, source in enumerate(sources) if source == one.source} for one in queries]

    def refitted(row: int, query: int) -> Effect | None:
        if row not in refits.rows:
            return None
        return effect_of(refits, row=row, query=query, related=related[query])

    pairs = {
        (query, place): found
        for query in range(len(queries))
        for place, row in enumerate(refits.rows)
        if (found := refitted(row, query))
    }
    plan = read_plan()
    kept, losses = finished_pairs(plan, load_losses(plan), None)

    halves = {
        one.query: HalvedQuery.of(
            kept, losses[:, one.query], loss_of_all=float(refits.loss_of_all[one.query])
        )
        for one in chosen
    }

    def halved(row: int, query: int) -> Effect:
        return halves[query].effect(row)

    return {
        "trainings": int(np.isfinite(refits.losses[:, :, 0]).sum()),
        "seeds": int(np.isfinite(refits.losses).any(axis=(1, 2)).sum()),
        "rows": len(refits.rows),
        "pairs": len(kept) // 2,
        "refits": _citations(chosen, related, refitted, rows=refits.rows),
        "halves": _citations(chosen, related, halved, rows=range(len(sources))),
        "agreement": {name: _agreement(refits.scores[name], pairs) for name in METHODS},
    }


def _citations(
    chosen: Sequence[Chosen],
    related: Sequence[Container[int]],
    measured: Callable[[int, int], Effect | None],
    *,
    rows: Sequence[int],
) -> dict[str, Any]:
    """What the first citations come to, and rows that have nothing to do with the query."""
    shown = [measured(one.shown, one.query) for one in chosen]
    other = [measured(one.bm25, one.query) for one in chosen if one.bm25 != one.shown]
    unrelated = [
        measured(row, one.query)
        for one in chosen
        for row in rows
        if row not in related[one.query] and row not in (one.shown, one.bm25)
    ]
    named = {
        "first of the order shown": shown,
        "BM25's first, where it is another": other,
        "unrelated rows": unrelated,
    }
    return {name: summary([one for one in effects if one is not None]) for name, effects in named.items()}


def _agreement(scores: Matrix, pairs: Mapping[tuple[int, int], Effect]) -> dict[str, Any]:
    """Signs that agree where an effect stands out, and the rank correlation of score and effect over rows, mean over queries."""
    clear = [np.sign(scores[at]) == np.sign(one.nats) for at, one in pairs.items() if abs(one.z) > CLEAR_Z]
    ranks = []
    for query in {query for query, _ in pairs}:
        own = [(place, one.nats) for (asked, place), one in pairs.items() if asked == query]
        if len(own) >= LEAST_CONTROLS:
            predicted = np.array([[scores[query, place] for place, _ in own]])
            ranks.append(spearman_rows(predicted, np.array([[nats for _, nats in own]]))[0])
    return {
        "signs": share([bool(one) for one in clear]),
        "spearman": float(np.mean(ranks)) if ranks else None,
    }


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    named = {f"{how}: {name}": one for how in ("refits", "halves") for name, one in result[how].items()}
    signs = [
        f"{name}: {one['signs']['n']} effects with |z| > {CLEAR_Z:g}, signs agree {_percent(one['signs'])}; Spearman with all effects {_number(one['spearman'])}"
        for name, one in result["agreement"].items()
    ]
    told = f"{result['trainings']} trainings without one row each: {result['rows']} rows, {result['seeds']} seeds; {result['pairs']} pairs of halves"
    return [told, *effect_lines(named), *signs]


def effect_lines(named: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What effects come to (`summary`), by what was left out."""
    columns = [
        Column("left out", 44, left=True), Column("n", 5), Column("z > 1.96", 10, ".2f"), Column("95 %", 15, ".2f"), Column("|z| > 1.96", 12),
        Column("positive of those", 19, ".2f"), Column("positive, all", 15, ".2f"), Column("95 %", 15, ".2f"), Column("median nats", 13, "+.4f"),
    ]  # fmt: skip
    rows = [
        (
            name, one["n"], one["stand_out"]["value"], one["stand_out"]["interval"], one["either_way"], one["positive_of_those"]["value"],
            one["positive"]["value"], one["positive"]["interval"], one["median_nats"],
        )
        for name, one in named.items()
    ]  # fmt: skip
    return lines(columns, rows)


def _percent(one: Mapping[str, Any]) -> str:
    return (
        "-"
        if one["value"] is None
        else f"{one['value']:.2f} ({one['interval'][0]:.2f} to {one['interval'][1]:.2f})"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    main()
