"""Are citations true? Trains again without the cited example and measures what the output's loss does, beside controls.

    python -m benchmarks.measured --yardstick PATH --work DIR [--citations 32] [--json]

Fixed before anything was measured: the queries are every k-th evaluation query, the citation is the first one of the order that an
auditor sees, three seeds. To halve the cost two citations of different queries share a run that leaves both rows out (`--together 1` gives each
its own), and three control runs leave out two uncited rows each, matched to three of the cited pairs by source and length. Every run
measures all queries, so the other citations' runs are further controls of each citation: z is taken against all of them, and as a check
against the three alone. The same z of each control against the rest says how often nothing stands out. Runs are kept in DIR and the
command goes on where it was stopped; with `--report` it only reports what is there.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.program import command, report, run
from benchmarks.small_model import SmallModel, add_yardstick
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import read_queries
from wherefrom.attribution.query import ScoredQuery
from wherefrom.attribution.ranking_metrics import spearman_rows
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.asking import ask
from wherefrom.evaluation.tables import Column, table
from wherefrom.retraining.effects import matched_controls, z_score
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.runs import Group, RunFolder
from wherefrom.retraining.training import token_rows
from wherefrom.retraining.weak import one_step, unlearn

SEEDS = (0, 1, 2)
#: Fewer whole seeds give no z.
LEAST_SEEDS = 2
#: Control groups, which stand behind the base run and before the citations' runs.
CONTROLS = 3
#: A citation stands out from this z on.
OUT = 2.0
_COLUMNS = (
    Column("citations", 26, left=True),
    Column("n", 4),
    Column("z >= 2", 8, ".2f"),
    Column("|z| >= 2", 10),
    Column("sign", 7, ".2f"),
    Column("sign, all", 11, ".2f"),
    Column("mean nats", 11, "+.4f"),
)
_FIGURES = (
    "citations",
    "stand_out_upwards",
    "stand_out_either_way",
    "sign_rate_of_those",
    "sign_rate",
    "mean_effect_nats",
)


def choose(folder: SmallModel, work: Path, count: int) -> list[dict[str, Any]]:
    """First citation of the order shown for every k-th query; kept in a file, so that later code changes cannot change the choice."""
    file = work / f"citations-{count}.json"
    if file.is_file():
        chosen: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        return chosen
    attributor = LanguageAttributor(folder.bundle(work / "bundle"))
    asked, _ = read_queries(folder.queries_file("queries"))
    taken = list(range(0, len(asked), len(asked) // count))[:count]
    chosen = [
        {"query": query} | _first_citation(scored)
        for query, scored in zip(taken, ask(attributor, [asked[index] for index in taken]), strict=True)
    ]
    file.write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf-8")
    return chosen


def _first_citation(query: ScoredQuery) -> dict[str, Any]:
    best = int(np.argmax(query.scores.shown))
    return {
        "row": int(query.scores.candidates.rows[best]),
        "influence": float(query.scores.influence[best]),
    }


def together(rows: list[int], size: int) -> list[Group]:
    """Citations i, i + n, i + 2 n ... share a run that leaves all of them out, where n is the number of runs."""
    runs = -(-len(rows) // size)
    return [tuple(sorted(set(rows[first::runs]))) for first in range(runs)]


def control_groups(pairs: list[Group], *, lengths: list[int], sources: list[str]) -> list[Group]:
    """Three groups of uncited rows, matched to three of the cited groups."""
    taken = {row for pair in pairs for row in pair}
    controls: list[Group] = []
    for index in np.random.default_rng(0).choice(len(pairs), size=CONTROLS, replace=False):
        found = matched_controls(pairs[index], lengths=lengths, sources=sources, avoid=taken, count=1)
        controls += found
        taken.update(*found)
    return controls


@dataclass(frozen=True)
class Setting:
    """What is trained and measured."""

    language: LanguageModel
    rows: list[TokenRow]
    queries: list[TokenRow]
    chosen: list[dict[str, Any]]
    #: Left-out rows of each run: the base run, the controls, then the citations' runs.
    groups: list[Group]
    #: Whether each cited row is a known cause of its query; None where the query has no known cause.
    gold: list[bool | None]


def prepare(folder: SmallModel, work: Path, *, citations: int, size: int) -> Setting:
    """Choose citations and controls and render everything."""
    chosen = choose(folder, work, citations)
    language = load_model(folder.base)
    corpus, asked = folder.corpus, folder.queries("queries")
    rows = token_rows(language, corpus, max_tokens=256)
    pairs = together([one["row"] for one in chosen], size)
    controls = control_groups(
        pairs, lengths=[len(one.ids) for one in rows], sources=[one.source for one in corpus]
    )
    gold = []
    for one in chosen:
        causes = asked[one["query"]].fields.get("gold", [])
        gold.append(corpus[one["row"]].example_id in causes if causes else None)
    queries = token_rows(language, asked, max_tokens=256)
    return Setting(language, rows, queries, chosen, [(), *controls, *pairs], gold)


def measure(setting: Setting, losses: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Figures of all citations from query losses `[S, G, Q]`."""
    effects = losses[:, 1:] - losses[:, :1]  # [S, G - 1, Q]
    groups = setting.groups[1:]
    places = [
        next(place for place, group in enumerate(groups) if one["row"] in group and place >= CONTROLS)
        for one in setting.chosen
    ]
    scores, matched, means, null, quiet = [], [], [], [], []
    for one, place in zip(setting.chosen, places, strict=True):
        table = effects[:, :, one["query"]].T  # [G - 1, S]
        others = np.delete(table, place, axis=0)
        scores.append(z_score(table[place], others))
        matched.append(z_score(table[place], table[:CONTROLS]))
        means.append(float(table[place].mean()))
        quiet += others.mean(axis=1).tolist()
        null += [z_score(row, np.delete(others, index, axis=0)) for index, row in enumerate(others)]
    z, effect = np.array(scores), np.array(means)
    predicted = np.array([one["influence"] for one in setting.chosen])
    gold = np.array([-1 if one is None else int(one) for one in setting.gold])
    parts = {"all": np.full(len(z), fill_value=True)}
    for index, part in enumerate(np.array_split(np.argsort(predicted, kind="stable"), 3)):
        name = ("predicted: lowest third", "predicted: middle third", "predicted: highest third")[index]
        parts[name] = np.isin(np.arange(len(z)), part)
    parts |= {"known cause": gold == 1, "fact, not its cause": gold == 0, "no known cause": gold == -1}
    return {
        "groups": {name: _figures(effect[part], z[part]) for name, part in parts.items() if part.any()},
        "share_out_by_three_matched_controls": float((np.array(matched) >= OUT).mean()),
        "controls_out_upwards": float((np.array(null) >= OUT).mean()),
        "controls_out_either_way": float((np.abs(null) >= OUT).mean()),
        "controls_sign_rate": float((np.array(quiet) > 0).mean()),
        "controls_mean_nats": float(np.mean(quiet)),
        "controls_sd_nats": float(np.std(quiet)),
        "spearman_predicted_measured": float(spearman_rows(predicted[None], effect[None])[0]),
        "effects_nats": [round(one, 4) for one in means],
        "z": [round(one, 2) for one in scores],
    }


def _figures(effect: npt.NDArray[np.float64], z: npt.NDArray[np.float64]) -> dict[str, Any]:
    out = np.abs(z) >= OUT
    return {
        "citations": len(z),
        "stand_out_upwards": float((z >= OUT).mean()),
        "stand_out_either_way": int(out.sum()),
        "sign_rate_of_those": float((effect[out] > 0).mean()) if out.any() else None,
        "sign_rate": float((effect > 0).mean()),
        "mean_effect_nats": float(effect.mean()),
        "median_effect_nats": float(np.median(effect)),
    }


def weak_methods(setting: Setting, audited: Path, effects: list[float]) -> dict[str, Any]:
    """Agreement of one gradient step of the final model with the measured effects."""
    final = load_model(audited)
    found: dict[str, Any] = {}
    for name, method in (("one_step", one_step), ("unlearn", unlearn)):
        started = time.monotonic()
        values = np.array(
            [
                method(final, [setting.queries[one["query"]]], setting.rows[one["row"]])[0]
                for one in setting.chosen
            ]
        )
        measured = np.array(effects)
        found[name] = {
            "spearman_with_measured": float(spearman_rows(values[None], measured[None])[0]),
            "sign_rate": float((values > 0).mean()),
            "same_sign": float(((values > 0) == (measured > 0)).mean()),
            "seconds_per_citation": (time.monotonic() - started) / len(values),
        }
    return found


def main() -> None:
    """Choose, train what is missing, report."""
    parser = command(__doc__)
    add_yardstick(parser)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--citations", type=int, default=32)
    parser.add_argument("--together", type=int, default=2, help="citations that share a left-out run")
    parser.add_argument("--report", action="store_true", help="train nothing; use the seeds that are whole")
    run(parser, _measure, table=_table)


def _measure(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    setting = prepare(arguments.yardstick, work, citations=arguments.citations, size=arguments.together)
    runs = RunFolder(
        work / "runs", language=setting.language, rows=setting.rows, recipe=Recipe(), keep_models=False
    )
    seeds = runs.trained_seeds(setting.groups, seeds=SEEDS) if arguments.report else list(SEEDS)
    if len(seeds) < LEAST_SEEDS:
        raise ConfigurationError(
            f"{len(seeds)} of {len(SEEDS)} seeds are whole; at least {LEAST_SEEDS} are needed to report"
        )
    report([f"{len(setting.groups)} runs for each of seeds {seeds}, {len(setting.chosen)} citations"])
    found = runs.losses(
        setting.queries,
        setting.groups,
        seeds=seeds,
        progress=lambda done, total: report([f"{done} of {total} runs"]),
    )
    result = measure(setting, found.losses) | {
        "seeds": seeds,
        "retrainings": found.seconds.size,
        "seconds_per_retraining": float(np.median(found.seconds)),
    }
    return result | {"weak": weak_methods(setting, arguments.yardstick.model, result["effects_nats"])}


def _table(result: dict[str, Any]) -> list[str]:
    lines = table(
        _COLUMNS,
        [(name, *(one[figure] for figure in _FIGURES)) for name, one in result["groups"].items()],
    )
    lines += [
        f"controls with z >= 2: {result['controls_out_upwards']:.1%}, |z| >= 2: {result['controls_out_either_way']:.1%}",
        f"controls: mean {result['controls_mean_nats']:+.4f}, sd {result['controls_sd_nats']:.4f} nats, positive {result['controls_sign_rate']:.0%}",
        f"by three matched controls alone {result['share_out_by_three_matched_controls']:.0%} of the citations stand out",
        f"Spearman of predicted influence and measured effect {result['spearman_predicted_measured']:.2f}",
        f"{result['retrainings']} retrainings, median {result['seconds_per_retraining']:.0f} s",
    ]
    for name, one in result["weak"].items():
        lines.append(
            f"{name}: Spearman with measured {one['spearman_with_measured']:.2f}, positive {one['sign_rate']:.0%}, "
            f"{one['seconds_per_citation']:.2f} s per citation"
        )
    return lines


if __name__ == "__main__":
    main()
