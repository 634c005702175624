"""How often the first five citations come from the source that taught a behaviour: the demo's twelve, by method.

    python -m benchmarks.behaviours --bundle BUNDLE

P@5 of the order shown, influence, BM25 and similarity over the outputs of each behaviour that count (`demo/story/demo.json`), and over three sets: the four
behaviours in words of their own, the hard ones for development, and the hard ones that are reported (demo/making/hard.md). Each mean over a set counts every
output once; its 95 % interval resamples outputs within behaviours.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import program
from benchmarks.story import METHODS, Asked, Ranking, asked_outputs, rankings_of
from demo.making.story_rules import DEVELOPED, rule_of
from wherefrom.attribution.bundles.examples import iter_examples

TOP = 5
_DRAWS = 2000
Shares = dict[str, list[float]]


def shares(
    asked: Sequence[Asked], rankings: Mapping[str, Sequence[Ranking]], sources: Sequence[str]
) -> Shares:
    """P@5 of each output by method.

    Args:
        asked: the outputs.
        rankings: of each method, rows of the corpus for each output.
        sources: source of each row.
    """
    return {
        name: [
            sum(sources[row] == one.source for row in ranking[:TOP]) / TOP
            for one, ranking in zip(asked, found, strict=True)
        ]
        for name, found in rankings.items()
    }


def set_of(one: Asked) -> str:
    """The set that an output is reported in."""
    if one.kind == "aimed":
        return "easy"
    return "hard, development" if one.source in DEVELOPED else "hard, reported"


def lead_interval(lead: Sequence[float], behaviours: Sequence[str]) -> tuple[float, float]:
    """95 % interval of a mean, by drawing outputs within behaviours."""
    rng = np.random.default_rng(0)
    values = np.array(lead)
    groups = [np.flatnonzero(np.array(behaviours) == name) for name in sorted(set(behaviours))]
    drawn = [
        values[np.concatenate([rng.choice(group, len(group)) for group in groups])].mean()
        for _ in range(_DRAWS)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def summarise(asked: Sequence[Asked], found: Shares) -> dict[str, Any]:
    """Means by behaviour and by set, and the lead of the order shown over BM25 in each set."""
    behaviours: dict[str, Any] = {}
    sets: dict[str, Any] = {}
    for source in sorted({one.source for one in asked}, key=lambda name: (set_of(_first(asked, name)), name)):
        places = [at for at, one in enumerate(asked) if one.source == source]
        behaviours[rule_of(source).reason] = {
            "set": set_of(asked[places[0]]),
            "outputs": len(places),
            **_means(found, places),
        }
    for name in sorted({set_of(one) for one in asked}):
        places = [at for at, one in enumerate(asked) if set_of(one) == name]
        lead = [found["shown"][at] - found["bm25"][at] for at in places]
        sets[name] = {
            "outputs": len(places),
            **_means(found, places),
            "lead_over_bm25": float(np.mean(lead)),
            "interval": lead_interval(lead, [asked[at].source for at in places]),
        }
    return {"behaviours": behaviours, "sets": sets}


def _first(asked: Sequence[Asked], source: str) -> Asked:
    return next(one for one in asked if one.source == source)


def _means(found: Shares, places: Sequence[int]) -> dict[str, float]:
    return {name: float(np.mean([found[name][at] for at in places])) for name in METHODS}


def table(result: Mapping[str, Any]) -> list[str]:
    """The figures as lines."""
    lines = [f"{'':<22}{'outputs':>8}" + "".join(f"{name:>12}" for name in METHODS)]
    for name, figures in (*result["behaviours"].items(), *result["sets"].items()):
        lines.append(
            f"{name:<22}{figures['outputs']:>8}" + "".join(f"{figures[method]:>12.2f}" for method in METHODS)
        )
        if "interval" in figures:
            low, high = figures["interval"]
            lines.append(
                f"   order shown minus BM25: {figures['lead_over_bm25']:+.3f} ({low:+.3f} to {high:+.3f})"
            )
    return lines


def measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Ask the model, attribute its answers, and count."""
    asked = asked_outputs()
    sources = [example.source for example in iter_examples(arguments.bundle)]
    return summarise(asked, shares(asked, rankings_of(arguments.bundle, asked), sources))


def main() -> None:
    """Run the command line."""
    parser = program.command(__doc__, threads=1)
    parser.add_argument("--bundle", type=Path, required=True, help="the demo's bundle")
    program.run(parser, measure, table=table)


if __name__ == "__main__":
    main()
