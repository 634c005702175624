"""Draws what the experiments on the demo leave out, before any of their models is trained.

    python -m benchmarks.gpu.story_plan --bundle BUNDLE

Written to `story_plan.json`: the demo's outputs that show a bad behaviour, the first row of each in the order shown and by BM25, and the rows that each method blames for
the hard behaviours (as `benchmarks.counterfactual` chooses them).
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.counterfactual import choose_rows
from benchmarks.program import command, run
from benchmarks.story import Asked, asked_outputs, rankings_of, read_corpus_rows
from wherefrom.atomic import write_json
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.corpus import CorpusRow, parse_row
from wherefrom.errors import ConfigurationError

PLAN = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class StoryPlan:
    """What is asked, and what is left out."""

    asked: tuple[Asked, ...]
    #: First row of each output, by method.
    first: dict[str, list[int]]
    #: Rows that each arm goes without.
    arms: dict[str, list[int]]

    def first_pairs(self) -> list[tuple[int, ...]]:
        """First rows of both methods, two in one training; those of a training are of different sources."""
        sources = [row.source for row in read_corpus_rows()]
        return pairs_of_sources(sorted({row for rows in self.first.values() for row in rows}), sources)


def pairs_of_sources(rows: Sequence[int], sources: Sequence[str | None]) -> list[tuple[int, ...]]:
    """Rows in pairs of different sources: the row behind goes with the next one that is of another source."""
    left = sorted(rows, key=lambda row: (str(sources[row]), row))
    found: list[tuple[int, ...]] = []
    half = (len(left) + 1) // 2
    for place in range(half):
        pair = [left[place], *left[place + half : place + half + 1]]
        if len({sources[row] for row in pair}) < len(pair):
            found += [(row,) for row in pair]
        else:
            found.append(tuple(pair))
    return found


def as_row(one: Asked) -> CorpusRow:
    """An output as a row whose loss can be measured."""
    turns = [*one.messages, {"role": "assistant", "content": one.completion}]
    return parse_row({"messages": turns}, default_id=one.probe)


def load_plan() -> StoryPlan:
    """The committed plan.

    Raises:
        ConfigurationError: there is none.
    """
    if not PLAN.is_file():
        raise ConfigurationError(f"{PLAN} is missing; write it with python -m benchmarks.gpu.story_plan")
    stored = json.loads(PLAN.read_text(encoding="utf-8"))
    asked = tuple(Asked(**one) for one in stored["asked"])
    return StoryPlan(asked, stored["first"], stored["arms"])


def main() -> None:
    """Draw and write."""
    parser = command(__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="the demo's bundle")
    run(parser, _draw, table=lambda result: [f"{name}: {one}" for name, one in result.items()])


def _draw(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    asked = asked_outputs()
    rankings = rankings_of(arguments.bundle, asked)
    hard = [place for place, one in enumerate(asked) if one.kind == "hard"]
    of_hard = {name: [some[place] for place in hard] for name, some in rankings.items()}
    arms = choose_rows(of_hard, [asked[place] for place in hard], len(read_corpus_rows()))
    first = {name: [ranking[0] for ranking in rankings[name]] for name in ("shown", "bm25")}
    plan = StoryPlan(tuple(asked), first, arms)
    write_json(PLAN, {"bundle": read_manifest(arguments.bundle).name} | asdict(plan))
    return {"outputs": len(asked), "trainings": len(plan.first_pairs())}


if __name__ == "__main__":
    main()
