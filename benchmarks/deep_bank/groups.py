"""Is a finding about a whole source true? Trains the adapter again without the rows of each bad source, one source in one refit.

    python -m benchmarks.deep_bank.groups --work DIR [--seeds 0] [--report] [--json]

Fixed by the bank's design: four bad sources of seven rows each, two of them with bad outputs that the model trained on all rows generated. The effect of a source on its own outputs is the rise of their
mean loss without it, beyond the refits without each of the three other sources: controls of as many rows of the same make. Refits of one seed share first weights, order and batches. Losses of finished
refits are written to `groups.npz`; `--report` reads that and trains nothing.
"""

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deep_bank.citations import committed, refits_of
from benchmarks.deep_bank.effects import Effect, effect_by_t
from benchmarks.deep_bank.material import FOLDER, bank_sha256, read_bank_queries, read_rows
from benchmarks.program import command, numbers, report, run
from benchmarks.work_folder import save_arrays
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as lines

#: `[S, G, Q]`: seed, source that is left out, query; nats per completion token.
Losses = npt.NDArray[np.float64]
LOSSES = FOLDER / "groups.npz"
#: Rows of a bad source; no other source of the bank has as many.
ROWS_OF_BAD = 7


def main() -> None:
    """Train what is missing, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--work", type=Path, help="folder of finished trainings")
    parser.add_argument(
        "--seeds", default="0", help="seeds of order and first weights (default: %(default)s)"
    )
    parser.add_argument("--report", action="store_true", help=f"train nothing; read {LOSSES.name}")
    run(parser, _measure, table=table)


def _measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    if not arguments.report:
        if arguments.work is None:
            raise ConfigurationError("--work is needed but for --report")
        train(arguments.work, numbers(arguments.seeds, option="--seeds"))
    losses = load()
    queries = [query.source for query in read_bank_queries(read_rows())]
    return {"seeds": len(losses), "sources": figures(losses, list(bad_sources()), queries)}


def bad_sources() -> dict[str, tuple[int, ...]]:
    """Rows of each bad source."""
    of_rows = [row.source for row in read_rows()]
    names = sorted(name for name, count in Counter(of_rows).items() if count == ROWS_OF_BAD)
    return {name: tuple(place for place, one in enumerate(of_rows) if one == name) for name in names}


def train(work: Path, seeds: Sequence[int]) -> None:
    """Train what the folder lacks, and write the losses of all."""
    runs, asked = refits_of(work)
    groups = list(bad_sources().values())
    found = runs.losses(
        asked, groups, seeds=seeds, progress=lambda done, total: report([f"{done} of {total}"])
    )
    save_arrays(LOSSES, {"bank_sha256": bank_sha256(), "losses": found.losses})


def load() -> Losses:
    """The committed losses.

    Raises:
        ConfigurationError: there are none, or they belong to another bank.
    """
    return committed(LOSSES)["losses"]


def figures(losses: Losses, sources: Sequence[str], asked: Sequence[str]) -> dict[str, Any]:
    """The effect of each source that has outputs, on these outputs.

    Args:
        losses: `[S, G, Q]`.
        sources: names of those that are left out, `[G]`.
        asked: source of each query, `[Q]`.
    """
    found = {}
    for place, name in enumerate(sources):
        own = [query for query, source in enumerate(asked) if source == name]
        if own:
            effect = effect_of_group(losses[:, :, own].mean(axis=2), place)
            found[name] = {"outputs": len(own), **asdict(effect)}
    return found


def effect_of_group(losses: npt.NDArray[np.float64], place: int) -> Effect:
    """The effect of one left-out group beyond the others, with Student's t over these: a control's mean over its seeds counts once.

    Args:
        losses: mean loss of the outputs, `[S, G]`.
        place: the group.
    """
    means = losses.mean(axis=0)
    controls = np.delete(means, place)  # [G - 1]
    error = float(controls.std(ddof=1)) * math.sqrt(1 + 1 / len(controls))
    return effect_by_t(float(means[place] - controls.mean()), error, len(controls) - 1)


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    columns = [
        Column("source left out", 30, left=True),
        Column("outputs", 9),
        Column("effect, nats", 14, "+.3f"),
        Column("95 %", 18, "+.3f"),
        Column("z", 8, "+.2f"),
    ]
    rows = [
        (name, one["outputs"], one["nats"], (one["low"], one["high"]), one["z"])
        for name, one in result["sources"].items()
    ]
    return [f"{result['seeds']} seeds; the other bad sources are the controls", *lines(columns, rows)]


if __name__ == "__main__":
    main()
