"""The plan is arithmetic over unit costs: shown, right, and with everybody's own costs."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.plan import (
    CORPORA,
    DAILY_AUDITS,
    UNITS,
    Machine,
    driver_for,
    features_for,
    plan_audits,
    plan_corpus,
    read_units,
    table,
)
from wherefrom.attribution.bundles.options import COMPACT_UP_TO, EXACT_UP_TO
from wherefrom.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
MACHINE = Machine(cores=16, memory_gb=64, index_share=0.25, busy=0.5, builders=1, core_hour_price=0.04)
COSTS = {one.name: one.value for one in UNITS}


def test_a_corpus_takes_what_its_arithmetic_says() -> None:
    """At round unit costs everybody can compute it in their head."""
    costs = COSTS | {
        "bundle_bytes": 1500.0, "exact_bytes": 1000.0, "compact_bytes": 400.0, "hnsw_bytes": 100.0,
        "process_bytes": 1e9, "build_core_s": 0.36,
    }  # fmt: skip
    found = plan_corpus(1_000_000, costs, MACHINE)
    assert (found["driver"], found["disk_gb"], found["cached_gb"]) == ("hnsw", 1.0, 0.0)
    assert found["worker_gb"] == pytest.approx(1.1)
    assert found["build_core_hours"] == pytest.approx(100)
    assert found["build_hours"] == pytest.approx(6.25)
    assert found["arithmetic"]["disk"] == "1,000,000 x (900 + 100) B, with compact features"
    assert plan_corpus(100_000, costs, MACHINE)["disk_gb"] == pytest.approx(0.16)
    assert plan_corpus(100_000_000, costs | {"faiss_bytes": 100.0}, MACHINE)["disk_gb"] == pytest.approx(60)


def test_audits_take_what_their_arithmetic_says() -> None:
    """Half of the cores stay free; machines are whole; the price is that of the time, idle share included."""
    costs = COSTS | {"audit_core_s": 0.431, "queue_core_s": 0.001}
    found = plan_audits(10_000_000, costs, MACHINE)
    assert found["cores"] == pytest.approx(100)
    assert found["machines"] == 7
    assert found["dollars_per_1000"] == pytest.approx(0.0096)


@pytest.mark.parametrize(
    ("examples", "driver"), [(10**5, "hnsw"), (10**6, "hnsw"), (10**7, "faiss"), (10**8, "milvus")]
)
def test_the_driver_follows_the_memory(examples: int, driver: str) -> None:
    """Graphs within their share, then lists within half of the memory, then a cluster."""
    assert driver_for(examples, COSTS, MACHINE) == driver


def test_features_follow_the_size_as_in_a_build() -> None:
    """The sizes are those of `wherefrom build` without `--features`."""
    assert (EXACT_UP_TO, COMPACT_UP_TO) == (100_000, 10_000_000)
    assert [features_for(size) for size in (EXACT_UP_TO, EXACT_UP_TO + 1, COMPACT_UP_TO + 1)] == [
        "exact", "compact", "none",
    ]  # fmt: skip


def test_every_row_says_what_breaks_it_first() -> None:
    """And shows the arithmetic of each of its figures."""
    result = {
        "units": COSTS,
        "corpora": [plan_corpus(one, COSTS, MACHINE) for one in CORPORA],
        "audits": [plan_audits(one, COSTS, MACHINE) for one in DAILY_AUDITS],
    }
    lines = table(result)
    assert sum("breaks first: " in line for line in lines) == len(CORPORA) + len(DAILY_AUDITS)
    assert all(one.name in "\n".join(lines) for one in UNITS)


def test_units_come_from_files_and_options(tmp_path: Path) -> None:
    """The largest corpus of the file counts; what is given by hand counts more."""
    case = {
        "examples": 10, "driver": "hnsw", "index_bytes_per_example": 1.0, "bundle_bytes_per_example": 2.0,
        "build_s": 1.0, "pass_ms": 1.0, "score_ms": 1.0,
    }  # fmt: skip
    larger = case | {
        "examples": 1000, "index_bytes_per_example": 50.0, "bundle_bytes_per_example": 550.0, "build_s": 20.0, "pass_ms": 30.0,
    }  # fmt: skip
    file = tmp_path / "scale.log"
    file.write_text("a table\n" + json.dumps({"cases": [case, larger, larger | {"driver": "faiss"}]}) + "\n")
    costs = read_units(["build_core_s=0.5"], [file])
    assert (costs["hnsw_bytes"], costs["faiss_bytes"], costs["bundle_bytes"]) == (50.0, 50.0, 500.0)
    assert (costs["build_core_s"], costs["audit_core_s"]) == (0.5, 0.031)
    assert costs["exact_bytes"] == pytest.approx(500 / COSTS["bundle_bytes"] * COSTS["exact_bytes"])
    disks = [plan_corpus(size, costs, MACHINE)["disk_gb"] / size for size in CORPORA]
    assert min(disks) > 0


@pytest.mark.parametrize(
    "given",
    [
        "speed=1",
        "build_core_s",
        "build_core_s=much",
        "build_core_s=0",
        "build_core_s=nan",
        "exact_bytes=65087",
    ],
)
def test_a_wrong_unit_is_one_line(given: str) -> None:
    """It says what is wrong."""
    with pytest.raises(ConfigurationError, match="--unit"):
        read_units([given], [])


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    """It says which benchmark writes such a file."""
    file = tmp_path / "other.log"
    file.write_text('{"cases": []}\n')
    with pytest.raises(ConfigurationError, match=r"benchmarks\.scale"):
        read_units([], [file])


def test_the_page_shows_this_plan() -> None:
    """docs/scale.md has the figures that the command prints."""
    page = (ROOT / "docs" / "scale.md").read_text("utf-8").partition("## What to run at which size\n")[2]
    for one in (plan_corpus(examples, COSTS, MACHINE) for examples in CORPORA):
        row = re.search(rf"^\| {one['examples']:,} \| (.*) \|$", page, re.MULTILINE)
        assert row is not None, one["examples"]
        assert row[1].split(" | ")[:5] == [
            f"`{one['driver']}`",
            one["features"],
            f"{one['disk_gb']:,.0f}",
            f"{one['worker_gb']:,.1f}",
            f"{one['cached_gb']:,.0f}",
        ]
        assert f"{one['build_hours']:,.1f}" in row[1]
    for one in (plan_audits(daily, COSTS, MACHINE) for daily in DAILY_AUDITS):
        assert (
            f"| {one['daily_audits']:,} | {one['per_second']:,.2f} | {one['cores']:,.1f} | {one['machines']} |"
            in page
        )
