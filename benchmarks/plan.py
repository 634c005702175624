"""What to run at which size: machines, memory, disk, index driver, hours to build and cost, from measured unit costs.

    python -m benchmarks.plan [--unit NAME=VALUE]... [--measured FILE]... [--core-hour-price DOLLARS] [--json]

Nothing is measured here. Each figure is a product of unit costs; the table says which, and which of them would break first. The unit costs are those that other benchmarks
measured on this project's machine, each with its command; replace them by your own: `--unit`, or `--measured` with the closing line of `benchmarks.scale --json`,
of which the largest corpus counts. A different model changes `audit_core_s`, `build_core_s` and `process_bytes` most.
"""

import argparse
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.program import command, run
from wherefrom.attribution.bundles.options import features_kept
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.tables import Column
from wherefrom.evaluation.tables import table as text_table

CORPORA = tuple(10**power for power in range(5, 10))
DAILY_AUDITS = tuple(10**power for power in range(3, 8))
_DAY_S = 86_400
_GB = 1e9


@dataclass(frozen=True)
class Unit:
    """One unit cost: what it is, and where the value comes from."""

    name: str
    value: float
    meaning: str
    source: str


UNITS = (
    Unit(
        "audit_core_s",
        0.386,
        "core seconds of one audit, from the stream to the commit",
        "193 s per 1,000 audits on two cores: `benchmarks.overhead`, SmolLM2-135M, form activation (docs/quality/cost.md)",
    ),
    Unit(
        "build_core_s",
        0.318,
        "core seconds of building, per example",
        "the demo's 1,131 rows are read in 180 s on two cores: SmolLM2-135M, form adapter, `--no-final` (docs/quality/cost.md)",
    ),
    Unit(
        "bundle_bytes",
        65_087,
        "bytes of a bundle with exact features per example, without its index",
        "`benchmarks.peers.deep`, form adapter, `--no-final` (docs/quality/peers.md)",
    ),
    Unit(
        "exact_bytes",
        56_552,
        "of them, exact features",
        "`benchmarks.kept_features`, form adapter (docs/quality/features.md)",
    ),
    Unit(
        "compact_bytes",
        4_062,
        "compact features per example, in the place of exact ones",
        "`benchmarks.kept_features`, form adapter (docs/quality/features.md)",
    ),
    Unit(
        "hnsw_bytes",
        2_832,
        "bytes of the graphs of `hnsw` per example, in each worker process",
        "two indexes of 300 numbers: 2 x (4 x 300 + 216) (docs/scale.md)",
    ),
    Unit(
        "faiss_bytes",
        350,
        "bytes of the lists of `faiss` per example, mapped",
        "two indexes of 175 bytes: `benchmarks.scale --vectors 100000 --drivers faiss` (docs/scale.md)",
    ),
    Unit(
        "process_bytes",
        2.463e9,
        "memory of one worker process besides its index",
        "highest memory while it reads 36 rows: `benchmarks.overhead` (docs/quality/cost.md)",
    ),
    Unit(
        "queue_core_s",
        0.00088,
        "core seconds of claim and store, per audit",
        "`benchmarks.queue`, SQLite; 0.86 ms on PostgreSQL (docs/reliability.md)",
    ),
)


@dataclass(frozen=True)
class Machine:
    """The machine that is counted in, and how full it may be."""

    cores: int
    memory_gb: float
    #: Share of the memory that the graphs of `hnsw` may take; the setting `index_memory_share`.
    index_share: float
    #: Share of the cores that steady work may take.
    busy: float
    #: Machines that build at the same time.
    builders: int
    core_hour_price: float


Costs = Mapping[str, float]


def driver_for(examples: int, costs: Costs, machine: Machine) -> str:
    """The index driver: graphs in memory while they fit, else lists that are mapped while the page cache holds them, else a cluster."""
    memory = machine.memory_gb * _GB
    if examples * costs["hnsw_bytes"] <= machine.index_share * memory:
        return "hnsw"
    return "faiss" if examples * costs["faiss_bytes"] <= memory / 2 else "milvus"


def features_for(examples: int) -> str:
    """What a build keeps of each example to score it with, where nobody chose."""
    return features_kept("auto", examples) or "exact"


def _kept_bytes(examples: int, costs: Costs) -> float:
    """Bytes of a bundle per example without its index, with the features that a build of this size keeps."""
    kept = {"exact": costs["exact_bytes"], "compact": costs["compact_bytes"], "none": 0.0}
    return costs["bundle_bytes"] - costs["exact_bytes"] + kept[features_for(examples)]


def plan_corpus(examples: int, costs: Costs, machine: Machine) -> dict[str, Any]:
    """What a corpus of this size takes: driver, disk, memory, time to build."""
    driver = driver_for(examples, costs, machine)
    # A cluster's own bytes were not measured: those of the lists stand in for them.
    index = costs["hnsw_bytes" if driver == "hnsw" else "faiss_bytes"]
    features, bundle = features_for(examples), _kept_bytes(examples, costs)
    in_worker = driver == "hnsw"
    indexes, of_indexes = examples * index, f"{examples:,} x {index:,.0f} B"
    core_hours = examples * costs["build_core_s"] / 3600
    return {
        "examples": examples,
        "driver": driver,
        "features": features,
        "disk_gb": examples * (bundle + index) / _GB,
        "worker_gb": (costs["process_bytes"] + (indexes if in_worker else 0.0)) / _GB,
        "cached_gb": 0.0 if in_worker else indexes / _GB,
        "build_hours": core_hours / (machine.cores * machine.builders),
        "build_core_hours": core_hours,
        "arithmetic": {
            "disk": f"{examples:,} x ({bundle:,.0f} + {index:,.0f}) B, with {features} features",
            "worker": f"{costs['process_bytes'] / _GB:.2f} GB"
            + (f" + {of_indexes}" if in_worker else ", the index is not in it"),
            "cached": "none" if in_worker else of_indexes,
            "build": f"{examples:,} x {costs['build_core_s']:g} s / 3,600 / ({machine.builders} x {machine.cores} cores)",
        },
        "breaks_first": _breaks_first(driver),
    }


def _breaks_first(driver: str) -> str:
    """The assumption that would break a row of the corpora first."""
    return {
        "hnsw": "one thread fills the graph, which was not measured beyond 4,000 examples (docs/scale.md)",
        "faiss": "the lists that a search reads stay in the page cache; on a cold disk a search takes many times as long",
        "milvus": "a cluster was not measured, and without features each audit reads its candidates through the model: 64 took 38 core seconds, a hundred audits' worth; take a GPU or --features compact",
    }[driver]


def plan_audits(daily: int, costs: Costs, machine: Machine) -> dict[str, Any]:
    """What so many audits a day take, whatever the corpus: cores, machines and the price."""
    each = costs["audit_core_s"] + costs["queue_core_s"]
    cores = daily * each / _DAY_S / machine.busy
    machines = max(1, math.ceil(cores / machine.cores))
    price = 1000 * each / 3600 / machine.busy * machine.core_hour_price
    per_second = daily / _DAY_S
    return {
        "daily_audits": daily,
        "per_second": per_second,
        "cores": cores,
        "machines": machines,
        "queue_cores": per_second * costs["queue_core_s"],
        "dollars_per_1000": price,
        "arithmetic": {
            "cores": f"{daily:,} x ({costs['audit_core_s']:g} + {costs['queue_core_s']:g}) s / 86,400 s / {machine.busy:g}",
            "machines": f"{cores:.2f} / {machine.cores} cores, rounded up",
            "dollars": f"1,000 x {each:g} s / 3,600 / {machine.busy:g} x ${machine.core_hour_price:g}",
        },
        "breaks_first": "audits come evenly over the day: ten times as many in an hour wait, the urgent ones first"
        if machines == 1
        else "one database takes every commit, and its own processor time was not measured at this rate",
    }


def read_units(given: Iterable[str], measured: Iterable[Path]) -> dict[str, float]:
    """The unit costs: the project's own, then those of files, then those that were given.

    Raises:
        ConfigurationError: a unit is unknown, no number above 0 or larger than what it is a part of, or a file is not what `benchmarks.scale --json` ends with.
    """
    costs = _usual_costs()
    for file in measured:
        costs |= _from_scale(file)
    for text in given:
        name, _, value = text.partition("=")
        if name not in costs:
            raise ConfigurationError(f"--unit: {name!r} is unknown; known: {', '.join(costs)}")
        costs[name] = _number(value, text)
    if costs["exact_bytes"] >= costs["bundle_bytes"]:
        raise ConfigurationError(
            f"--unit exact_bytes: {costs['exact_bytes']:g} is not below bundle_bytes, {costs['bundle_bytes']:g}, of which it is a part"
        )
    return costs


def _usual_costs() -> dict[str, float]:
    return {one.name: one.value for one in UNITS}


def _number(value: str, text: str) -> float:
    try:
        found = float(value)
    except ValueError as error:
        raise ConfigurationError(f"--unit {text!r}: {value!r} is no number") from error
    if not (math.isfinite(found) and found > 0):
        raise ConfigurationError(f"--unit {text!r}: give a number above 0")
    return found


def _from_scale(file: Path) -> dict[str, float]:
    """Unit costs of the largest corpus that `benchmarks.scale` measured, on one thread; it does not tell features apart, so they take their usual share of the bundle."""
    try:
        last = file.read_text(encoding="utf-8").splitlines()[-1]
        cases = json.loads(last)["cases"]
        largest = max(case["examples"] for case in cases)
        by_driver = {case["driver"]: case for case in cases if case["examples"] == largest}
        found = {f"{name}_bytes": float(case["index_bytes_per_example"]) for name, case in by_driver.items()}
        one = next(iter(by_driver.values()))
        usual, bundle = _usual_costs(), one["bundle_bytes_per_example"] - one["index_bytes_per_example"]
        share = bundle / usual["bundle_bytes"]
        return found | {
            "bundle_bytes": bundle,
            "exact_bytes": share * usual["exact_bytes"],
            "compact_bytes": share * usual["compact_bytes"],
            "build_core_s": one["build_s"] / largest,
            "audit_core_s": (one["pass_ms"] + one["score_ms"]) / 1000,
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise ConfigurationError(
            f"--measured {file}: its last line is not what `python -m benchmarks.scale --examples ... --json` ends with"
        ) from error


def work(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """The plan of every size."""
    costs = read_units(arguments.unit, arguments.measured)
    machine = Machine(
        cores=arguments.cores,
        memory_gb=arguments.memory_gb,
        index_share=arguments.index_share,
        busy=arguments.busy,
        builders=arguments.builders,
        core_hour_price=arguments.core_hour_price,
    )
    return {
        "units": costs,
        "corpora": [plan_corpus(one, costs, machine) for one in CORPORA],
        "audits": [plan_audits(one, costs, machine) for one in DAILY_AUDITS],
    }


_CORPORA_COLUMNS = (
    Column("examples", 14, ",d"),
    Column(" driver", 8, left=True),
    Column(" features", 10, left=True),
    Column("disk GB", 12, ",.0f"),
    Column("worker GB", 10, ",.1f"),
    Column("cached GB", 10, ",.0f"),
    Column("build h", 10, ",.1f"),
    Column("core h", 12, ",.0f"),
)
_AUDITS_COLUMNS = (
    Column("audits/day", 12, ",d"),
    Column("per s", 9, ",.2f"),
    Column("cores", 9, ",.1f"),
    Column("machines", 9, ",d"),
    Column("of queue", 9, ",.2f"),
    Column("$/1,000", 9, ".4f"),
)


def table(result: dict[str, Any]) -> list[str]:
    """Unit costs, both tables, then the arithmetic of every figure and what breaks it first."""
    sources = {one.name: one for one in UNITS}
    lines = ["unit costs"]
    for name, value in result["units"].items():
        unit = sources[name]
        source = unit.source if value == unit.value else "given"
        lines.append(f"  {name} = {value:g}: {unit.meaning}; {source}")
    corpora = [
        (
            one["examples"], f" {one['driver']}", f" {one['features']}", one["disk_gb"], one["worker_gb"], one["cached_gb"],
            one["build_hours"], one["build_core_hours"],
        )
        for one in result["corpora"]
    ]  # fmt: skip
    audits = [
        (
            one["daily_audits"], one["per_second"], one["cores"], one["machines"], one["queue_cores"],
            one["dollars_per_1000"],
        )
        for one in result["audits"]
    ]  # fmt: skip
    return [
        *lines,
        *text_table(_CORPORA_COLUMNS, corpora),
        *text_table(_AUDITS_COLUMNS, audits),
        "arithmetic",
        *(line for one in result["corpora"] for line in _shown(f"{one['examples']:,} examples", one)),
        *(line for one in result["audits"] for line in _shown(f"{one['daily_audits']:,} audits a day", one)),
    ]


def _shown(what: str, one: Mapping[str, Any]) -> Iterable[str]:
    yield f"  {what}:"
    for name, text in one["arithmetic"].items():
        yield f"    {name} = {text}"
    yield f"    breaks first: {one['breaks_first']}"


def main() -> None:
    """Run the command."""
    parser = command(__doc__)
    parser.add_argument(
        "--unit", action="append", default=[], metavar="NAME=VALUE", help="replace a unit cost"
    )
    parser.add_argument(
        "--measured", action="append", default=[], type=Path, help="file that ends with what benchmarks.scale --json prints last"
    )  # fmt: skip
    parser.add_argument("--cores", type=int, default=16, help="cores of a machine (default: %(default)s)")
    parser.add_argument("--memory-gb", type=float, default=64, help="its memory (default: %(default)s)")
    parser.add_argument("--index-share", type=float, default=0.25, help="share of the memory for graphs of hnsw (default: %(default)s)")  # fmt: skip
    parser.add_argument("--busy", type=float, default=0.5, help="share of the cores that steady work may take (default: %(default)s)")  # fmt: skip
    parser.add_argument("--builders", type=int, default=1, help="machines that build together (default: %(default)s)")  # fmt: skip
    parser.add_argument("--core-hour-price", type=float, default=0.04, help="dollars; an assumption, put your own in its place (default: %(default)s)")  # fmt: skip
    run(parser, work, table=table)


if __name__ == "__main__":
    main()
