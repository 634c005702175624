"""Many outputs, one answer: does a group of outputs find its source better than single outputs do?

    python -m benchmarks.output_groups --bundle DIR --input OUTPUTS.jsonl [--field true_source] [--json]

Fixed before anything was measured: all outputs with one value of the field are one group; outputs without a value belong to none. The value is the source that taught the behaviour.
P@5 and P@20 are the shares of the best 5 and 20 citations that come from that source: of the order shown, of the influence alone and of BM25 alone, of single outputs (mean) and of their
group. Every training example is a candidate, so that nothing depends on the search. *Weak* says how many outputs, those without a value too, are called weak. The file
that `make demo` keeps in its cache (`demo-outputs-*.json`) is such a list.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.program import command, run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.offline import prepare_all, signals_of_all
from wherefrom.attribution.output_group import TokenizedGroup
from wherefrom.attribution.query import CandidateScores, ReadQuery
from wherefrom.cli.placement_options import placement_of
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines
from wherefrom.library import open_with_model
from wherefrom.records import Message, Query, QueryGroup

COUNTS = (5, 20)
ORDERS = ("shown", "influence", "bm25")
MAX_TOKENS = 1024


@dataclass(frozen=True)
class Labelled:
    """An output and what taught it; None where nothing in the corpus did."""

    query: Query
    source: str | None


def main() -> None:
    """Read, ask singly and together, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--input", type=Path, required=True, help="outputs as JSON lines, or one JSON list")
    parser.add_argument("--field", default="true_source", help="whose value is the source that taught it")
    run(parser, _measure, table=table)


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    outputs = read_outputs(arguments.input, arguments.field)
    bundle = open_with_model(arguments.bundle, None, None, placement=placement_of(None, None))
    attributor = LanguageAttributor(bundle)
    asked = [one.query for one in outputs]
    read = signals_of_all(
        attributor, prepare_all(attributor, asked, max_tokens=MAX_TOKENS, over_long="truncate")
    )
    sources = [one.source for one in bundle.texts.read(list(range(len(bundle.store))))]
    score = partial(attributor.score, count=len(sources))
    singles = [score(one).scores for one in read]
    groups: dict[str, dict[str, Any]] = {}
    for source in dict.fromkeys(one.source for one in outputs if one.source is not None):
        places = [place for place, one in enumerate(outputs) if one.source == source]
        group = _group(source, [read[place] for place in places])
        together = attributor.score_group(attributor.read_group(group), count=len(sources)).scores
        alone = [precision(singles[place], sources, source) for place in places]
        groups[source] = {
            "outputs": len(places),
            "single": {name: float(np.mean([one[name] for one in alone])) for name in alone[0]},
            "group": precision(together, sources, source),
            "weak": sum(is_weak(singles[place]) for place in places),
        }
    others = [place for place, one in enumerate(outputs) if one.source is None]
    return {
        "bundle": bundle.manifest.name,
        "form": bundle.manifest.parameters.form,
        "groups": groups,
        "without_source": {"outputs": len(others), "weak": sum(is_weak(singles[place]) for place in others)},
    }


def read_outputs(file: Path, field: str) -> list[Labelled]:
    """Outputs with `messages`, `completion` and the field.

    Raises:
        ConfigurationError: the file is not one of such outputs.
    """
    try:
        content = file.read_text(encoding="utf-8")
        rows = (
            json.loads(content)
            if content.lstrip().startswith("[")
            else [json.loads(line) for line in content.splitlines()]
        )
        return [
            Labelled(
                Query(
                    key=f"output-{place}",
                    turns=tuple(Message.model_validate(turn) for turn in row["messages"]),
                    completion=row["completion"],
                ),
                row.get(field),
            )
            for place, row in enumerate(rows)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"{file}: not outputs with `messages` and `completion` ({type(error).__name__})"
        ) from error


def _group(source: str, read: Sequence[ReadQuery]) -> TokenizedGroup:
    return TokenizedGroup(QueryGroup(key=source, members=tuple(one.asked for one in read)), tuple(read), ())


def precision(scores: CandidateScores, sources: Sequence[str], source: str) -> dict[str, float]:
    """Share of the best citations from a source, by order and count."""
    rows = scores.candidates.rows
    orders = {"shown": scores.shown, "influence": scores.influence, "bm25": scores.candidates.bm25}
    found = {}
    for name in ORDERS:
        best = rows[np.lexsort((rows, -orders[name]))]
        for count in COUNTS:
            found[f"{name}, P@{count}"] = float(np.mean([sources[row] == source for row in best[:count]]))
    return found


def is_weak(scores: CandidateScores) -> bool:
    """Whether an output would be called weak."""
    return scores.noise is not None and scores.noise.is_weak(float(scores.influence.max()))


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    names = [f"{name}, P@{count}" for name in ORDERS for count in COUNTS]
    columns = [Column("source", 26, left=True), Column("outputs", 9), Column("", 9, left=True)]
    columns += [Column(name, 17, ".2f") for name in names]
    rows = [
        [source, one["outputs"], f"  {kind}", *(one[kind][name] for name in names)]
        for source, one in result["groups"].items()
        for kind in ("single", "group")
    ]
    weak = ", ".join(
        f"{source} {one['weak']} of {one['outputs']}"
        for source, one in [*result["groups"].items(), ("without a source", result["without_source"])]
    )
    return [*lines(columns, rows), f"weak: {weak}"]


if __name__ == "__main__":
    main()
