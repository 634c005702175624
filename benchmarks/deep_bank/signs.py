r"""Whether the signs of influence scores hold: against measured effects of single rows that stand out, regressed from the losses of the bank's halves.

    python -m benchmarks.deep_bank.signs --work DIR [--part choose|report] [--json]

Halves h and h' of a pair complement each other. With s_pj = 1 where row j is in h of pair p and -1 where it is in h', and the paired difference of losses

    d_p = loss(h') - loss(h) = sum_j s_pj e_j + noise,        e_j = effect_j - mean effect,      effect_j > 0: row j made the output more likely

(each half has as many rows as the other, so only differences from the mean effect show). For each query, rows are taken into the regression one after the
other, the largest |t| first, while its two-sided p times the number of rows is at most .05. A row that is taken in, and whose effect is beyond 3 standard errors of the final
fit, *stands out*. The mean effect, 2 (mean loss of the halves - loss with all rows) / N, is added; the model of all rows is in the work folder.

A sign agrees where that of the score is that of the effect. *Determined* are the signs that `wherefrom.attribution.noise` lets stand: its rule was chosen on `--part choose`.*Weak* is asked of outputs as they are, and with their cause left out of the comparison. Intervals are Wilson's, 95 %; outcomes of one query are not wholly independent. Queries are those of the part. Pairs are all finished ones: no loss of a query to report on was looked at for a choice;
`--pairs part` keeps to the pairs of the part too.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.deep_bank.material import (
    RECIPE,
    SEEDS,
    BankQuery,
    Part,
    Plan,
    Run,
    read_bank_queries,
    read_plan,
    read_rows,
)
from benchmarks.deep_bank.scores import FORMS, all_scores
from benchmarks.deep_bank.train import Measured, ensure_adapter, load_losses
from benchmarks.program import command, run
from benchmarks.work_folder import kept_scores
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.agreement import wilson
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.noise import Noise
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines
from wherefrom.retraining.training import mean_losses, token_rows

#: Chance that any row of a query is taken in although none has an effect.
ALPHA = 0.05
#: Standard errors from which an effect stands out.
OUT = 3.0
#: Most rows of one query.
MOST = 6
#: Best citations of each query whose signs are counted.
CITED = 10
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StandOut:
    """A measured effect that stands out."""

    query: int
    row: int
    #: Change of the query's loss without the row, and its standard error.
    nats: float
    error: float


def main() -> None:
    """Regress, compare, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of the adapter and of the scores")
    parser.add_argument("--part", choices=("choose", "report"), default="choose", help="whose queries")
    parser.add_argument("--pairs", choices=("all", "part"), default="all", help="whose pairs of halves")
    run(parser, _measure, table=table)


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    plan, measured = read_plan(), load_losses(read_plan())
    rows = read_rows()
    asked = read_bank_queries(rows)
    chosen = plan.queries_of(arguments.part, len(asked))
    kept, losses = finished_pairs(plan, measured, None if arguments.pairs == "all" else arguments.part)
    every = kept_scores(arguments.work, {"losses": lambda: {"all rows": losses_of_all(arguments.work)}})
    effects = stand_outs(kept, losses, chosen, loss_of_all=every["all rows"][0])
    scores = all_scores(arguments.work, variants=False)
    return {
        "part": arguments.part,
        "pairs": len(kept) // 2,
        "queries": len(chosen),
        "effects": len(effects),
        "negative": sum(one.nats < 0 for one in effects),
        "figures": {form: agreement(effects, scores[form], chosen) for form in FORMS},
        "weak": {
            form: weak_outputs(scores[form], chosen, asked, [row.source for row in rows]) for form in FORMS
        },
    }


def finished_pairs(
    plan: Plan, measured: Measured, part: Part | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Halves `[2 P, N]` of the finished pairs of a part (None: of both) at the first seed, and the losses `[2 P, Q]` of all queries."""
    places = {run: place for place, run in enumerate(measured.runs)}
    halves = [
        half
        for half in range(len(plan.halves))
        if part in (None, plan.part_of_half(half))
        and all(Run(one, SEEDS[0]) in places for one in (half, half ^ 1))
    ]
    return plan.halves[halves], measured.queries[[places[Run(half, SEEDS[0])] for half in halves]]


def losses_of_all(work: Path) -> Matrix:
    """Losses of all queries under the model trained on all rows, `[1, Q]`."""
    language = load_model(ensure_base_model(default_cache()), ensure_adapter(work))
    asked = [one.row for one in read_bank_queries(read_rows())]
    return mean_losses(language.model, token_rows(language, asked, max_tokens=RECIPE.max_tokens))[None]


def stand_outs(
    kept: npt.NDArray[np.bool_],
    losses: npt.NDArray[np.float32],
    queries: Sequence[int],
    *,
    loss_of_all: npt.NDArray[np.float32],
) -> list[StandOut]:
    """Measured effects that stand out.

    Args:
        kept: `[2 P, N]` rows of each half, members of a pair behind each other.
        losses: `[2 P, Q]` of all queries under each half's model.
        queries: the places that are looked at.
        loss_of_all: `[Q]` under the model of all rows.
    """
    signs = np.where(kept[0::2], 1.0, -1.0)  # [P, N]
    rows = kept.shape[1]
    found = []
    for query in queries:
        differences = (losses[1::2, query] - losses[0::2, query]).astype(np.float64)
        mean = 2 * (float(losses[:, query].mean()) - float(loss_of_all[query])) / rows
        for row, (effect, error) in taken_in(differences, signs).items():
            nats = effect + mean * rows / (rows - 1)
            if abs(nats) > OUT * error:
                found.append(StandOut(query, row, nats, error))
    return found


def taken_in(differences: Floats, signs: Floats) -> dict[int, tuple[float, float]]:
    """Rows that a forward selection takes in, with their effect and its standard error.

    Args:
        differences: `[P]` of one query.
        signs: `[P, N]` in which half each row is.
    """
    pairs, rows = signs.shape
    chosen: list[int] = []
    while len(chosen) < min(MOST, pairs - 3):
        basis = np.linalg.qr(signs[:, chosen])[0]  # [P, c]
        left = signs - basis @ (basis.T @ signs)  # [P, N]
        rest = differences - basis @ (basis.T @ differences)
        size = np.maximum((left**2).sum(axis=0), 1e-9)
        slope = left.T @ rest / size
        freedom = pairs - len(chosen) - 1
        noise = np.maximum((rest**2).sum() - slope**2 * size, 1e-18) / freedom
        t = np.abs(slope) / np.sqrt(noise / size)
        t[chosen] = 0.0
        best = int(t.argmax())
        if 2 * special.stdtr(freedom, -t[best]) * (rows - len(chosen)) > ALPHA:
            break
        chosen.append(best)
    return fit(differences, signs, chosen)


def fit(differences: Floats, signs: Floats, chosen: Sequence[int]) -> dict[int, tuple[float, float]]:
    """Least squares over the rows that were taken in."""
    if not chosen:
        return {}
    used = signs[:, chosen]
    effects = np.linalg.lstsq(used, differences, rcond=None)[0]
    noise = ((differences - used @ effects) ** 2).sum() / (len(differences) - len(chosen))
    errors = np.sqrt(noise * np.diag(np.linalg.inv(used.T @ used)))
    return {
        row: (float(effect), float(error)) for row, effect, error in zip(chosen, effects, errors, strict=True)
    }


def agreement(effects: Sequence[StandOut], scores: Matrix, queries: Sequence[int]) -> dict[str, Any]:
    """How often the sign of a score is that of the effect: of all stand-outs, and of those whose sign is determined; and how many citations have one.

    Args:
        effects: that stand out.
        scores: `[Q, N]` of a method.
        queries: places that are looked at.
    """
    noise = {query: Noise.of(scores[query]) for query in queries}
    right = [bool(np.sign(scores[one.query, one.row]) == np.sign(one.nats)) for one in effects]
    sure = [
        agrees
        for one, agrees in zip(effects, right, strict=True)
        if (held := noise[one.query]) is not None and held.determines(float(scores[one.query, one.row]))
    ]
    cited = [
        held is not None and held.determines(float(score))
        for query, held in noise.items()
        for score in np.sort(scores[query])[-CITED:]
    ]
    return {
        "all": share(right),
        "determined": share(sure),
        "cited": len(cited),
        "cited_determined": sum(cited),
    }


def weak_outputs(
    scores: Matrix, queries: Sequence[int], asked: Sequence[BankQuery], sources: Sequence[str]
) -> dict[str, dict[str, list[int]]]:
    """How many outputs of each kind are called weak, of how many: as they are, and with the rows of their subject or source left out of the comparison."""
    found: dict[str, dict[str, list[int]]] = {"cause in the corpus": {}, "cause left out": {}}
    for query in queries:
        one = asked[query]
        own = np.array([source == one.source for source in sources])
        for name, row in (("cause in the corpus", scores[query]), ("cause left out", scores[query][~own])):
            noise = Noise.of(row)
            counts = found[name].setdefault(one.kind, [0, 0])
            counts[0] += noise is not None and noise.is_weak(float(row.max()))
            counts[1] += 1
    return found


def share(outcomes: Sequence[bool]) -> dict[str, Any]:
    """How many hold of how many, with Wilson's 95 % interval."""
    count, held = len(outcomes), sum(outcomes)
    if not count:
        return {"n": 0, "value": None, "interval": None}
    return {"n": count, "value": held / count, "interval": list(wilson(held, count))}


def table(result: Mapping[str, Any]) -> list[str]:
    """Lines for people."""
    told = (
        f"part {result['part']}: {result['queries']} queries, {result['pairs']} pairs of halves; {result['effects']} effects stand out, "
        f"{result['negative']} of them negative"
    )
    weak = [
        f"weak, {form}, {name}: "
        + ", ".join(f"{kind} {held} of {count}" for kind, (held, count) in kinds.items())
        for form, cases in result["weak"].items()
        for name, kinds in cases.items()
    ]
    return [told, *sign_lines(result["figures"]), *weak]


def sign_lines(figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How often signs agree (`agreement`), by score."""
    columns = [
        Column("score", 18, left=True),
        Column("effects", 9),
        Column("agree", 8, ".2f"),
        Column("95 %", 15, ".2f"),
        Column("determined", 12),
        Column("agree", 8, ".2f"),
        Column("95 %", 15, ".2f"),
        Column("of citations", 14, ".2f"),
    ]
    rows = [
        (
            name, one["all"]["n"], one["all"]["value"], one["all"]["interval"],
            one["determined"]["n"], one["determined"]["value"], one["determined"]["interval"], one["cited_determined"] / max(one["cited"], 1),
        )
        for name, one in figures.items()
    ]  # fmt: skip
    return lines(columns, rows)


if __name__ == "__main__":
    main()
