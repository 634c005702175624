"""`wherefrom evaluate` on the tiny model: the card round trip, what is missing, and bad input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import (
    TINY_MODEL,
    TINY_ROWS,
    shared_bundle,
    shared_micro_bundle,
    shared_micro_model,
    tiny_rows,
    write_jsonl,
)
from tests.unit.cli.conftest import Run
from wherefrom.attribution.bundles.manifest import read_card, read_manifest

RunCommand = Callable[..., Run]
#: Outputs that are asked; few, because each pass of the overhead asks them all again.
ASKED = 12


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the tiny bundle whose card may change."""
    return Path(shutil.copytree(shared_bundle(), tmp_path / "bundle"))


@pytest.fixture
def micro_bundle(tmp_path: Path) -> Path:
    """A copy of the micro bundle whose card may change."""
    return Path(shutil.copytree(shared_micro_bundle(), tmp_path / "micro"))


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Rows of the bundle, each its own cause."""
    return write_jsonl(tmp_path / "known.jsonl", [row | {"gold": [row["id"]]} for row in tiny_rows(ASKED)])


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Losses that fall when a query's own row was kept; the repeat holds the first 8 subsets with other noise."""
    generator = np.random.default_rng(0)
    kept = generator.random((20, TINY_ROWS)) < 0.5
    corpus = np.zeros(kept.shape, np.float32)
    for name, count in (("bank", 20), ("repeat", 8)):
        noise = 0.3 * generator.random((count, ASKED))
        losses = (3.0 - kept[:count, :ASKED] + noise).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", kept=kept[:count], query_loss=losses, corpus_loss=corpus[:count])
    return tmp_path / "bank.npz"


def evaluate(run: RunCommand, bundle: Path, *more: object) -> Run:
    """`wherefrom evaluate` with the tiny model."""
    words = ("--bundle", bundle, "--model", TINY_MODEL, *more)
    return run("evaluate", *map(str, words))


def test_everything_but_calibration(run: RunCommand, bundle: Path, known: Path, bank: Path) -> None:
    """Figures with intervals and hashes stand in the card, the bundle keeps its name and verifies, the page is written."""
    before, cost = read_manifest(bundle), read_card(bundle)["cost"]
    folder = bank.parent
    stress = folder / "stress.json"
    stress.write_text('a table\n{"kinds": {"verbatim": {"shown@1": 0.9, "ratio": Infinity}}, "level": NaN}\n')
    files = ("--bank", bank, "--bank-queries", known, "--bank-losses", "queries", "--known", known)
    more = (
        "--bank-repeat",
        folder / "repeat.npz",
        "--stress",
        stress,
        "--page",
        folder / "card.html",
        "--json",
    )
    done = evaluate(run, bundle, *files, *more)
    assert done.code == 0, done.err
    printed, card = json.loads(done.out), read_card(bundle)
    quality = card["quality"]
    assert printed["name"] == read_manifest(bundle).name == before.name
    assert run("bundle", "verify", str(bundle)).code == 0
    assert card["cost"] == cost
    assert printed["measures"] == quality["measures"]
    measures = quality["measures"]
    for name in ("LDS, effect", "LDS, effect, every pair exact", "LDS, order shown", "recall@1, order shown"):
        low, high = measures[name]["interval"]
        assert low <= measures[name]["value"] <= high
        assert measures[name]["n"] == ASKED
    ceiling = measures["ceiling of LDS"]["value"]
    effect = measures["LDS, effect"]
    assert effect["share_of_ceiling"] == pytest.approx(effect["value"] / ceiling, rel=1e-3)
    # the losses were made by the queries' own rows, which the kernel finds
    assert effect["value"] > 0.3
    assert measures["recall@10, effect"]["value"] == 1.0
    assert measures["HNSW recall@10 against exhaustive search"]["value"] > 0.9
    assert measures["signals, search and scores over a plain forward pass"]["value"] > 0
    assert measures["influence of a shuffled model: rank correlation with the model's"]["value"] < 0.5
    assert measures["influence of a shuffled model: overlap of the ten first"]["value"] < 0.6
    assert 0.1 < measures["order shown: different examples among the ten first of all outputs"]["value"] <= 1
    assert quality["stress"] == {"kinds": {"verbatim": {"shown@1": 0.9, "ratio": None}}, "level": None}
    assert quality["material"]["bank"]["file"] == "bank.npz"
    assert len(quality["material"]["known"]["sha256"]) == 64
    assert quality["machine"]["torch"]
    assert "not calibrated" in quality["not_measured"]["reliability, conformal p-values, abstention"]
    assert str(folder) not in json.dumps(card)
    assert [one["title"] for one in card["plots"]] == ["LDS", "Recall of known causes"]
    assert "<svg" in (folder / "card.html").read_text()


def test_with_a_calibration(run: RunCommand, bundle: Path, known: Path) -> None:
    """Controls that calibrated the bundle are no test of it; held-out ones give every figure of the calibration."""
    folder = known.parent
    rows = tiny_rows()[TINY_ROWS:]
    fit = write_jsonl(folder / "fit.jsonl", rows[: len(rows) - ASKED])
    held_out = write_jsonl(folder / "held_out.jsonl", rows[len(rows) - ASKED :])
    causes = write_jsonl(
        folder / "causes.jsonl", [row | {"gold": [row["id"]]} for row in tiny_rows(50)[ASKED:]]
    )
    out = folder / "calibrated"
    words = ("--bundle", bundle, "--model", TINY_MODEL, "--controls", fit, "--known", causes, "--out", out)
    assert run("calibrate", *map(str, words)).code == 0
    printed = json.loads(evaluate(run, out, "--known", known, "--controls", held_out, "--json").out)
    assert printed["measures"]["AUROC, known against controls"]["value"] > 0.7
    assert printed["measures"]["abstained on controls"]["n"] == ASKED
    foreign = printed["measures"]["rows that the model never saw among the ten of most influence"]
    assert foreign["value"] < 0.3
    assert "by chance" in foreign["note"]
    assert [one["nominal"] for one in printed["conformal"]] == [0.01, 0.02, 0.05, 0.1, 0.15, 0.2]
    assert sum(one["count"] for one in printed["reliability"]) == 2 * ASKED * 10
    assert printed["not_measured"].keys() == {"stress", "LDS"}
    again = json.loads(evaluate(run, out, "--known", known, "--controls", fit, "--json").out)
    assert (
        "fit.jsonl was used to calibrate this bundle"
        in again["not_measured"]["conformal p-values on controls"]
    )
    assert "conformal" not in again


def test_without_material(run: RunCommand, micro_bundle: Path) -> None:
    """Search is measured with training examples as queries; everything else is listed with its reason."""
    bundle = micro_bundle
    done = run("evaluate", "--bundle", str(bundle), "--model", str(shared_micro_model()))
    assert done.code == 0, done.err
    for text in ("not measured: LDS: no bank given", "not measured: recall", "not measured: stress"):
        assert text in done.out
    assert done.out.startswith("figure ")
    assert "training examples as queries" in done.out
    assert f"The card of bundle {read_manifest(bundle).name} now holds these figures." in done.out
    quality = read_card(bundle)["quality"]
    assert quality["measures"]["candidates hold the exact top-1"]["of"] == "training examples as queries"
    assert quality["not_measured"]["LDS"].startswith("no bank given")


def test_bad_input(run: RunCommand, bundle: Path, known: Path, bank: Path) -> None:
    """Each mistake is one line that says what to do, and the card stays as it was."""
    before = read_manifest(bundle)
    folder = bank.parent
    stranger = write_jsonl(folder / "stranger.jsonl", [tiny_rows(1)[0] | {"gold": ["nobody"]}])
    fewer = write_jsonl(folder / "queries.jsonl", tiny_rows(3))
    (folder / "text.json").write_text("no JSON")
    (folder / "other.json").write_text('{"tiers": {}}')
    cases: list[tuple[tuple[object, ...], str]] = [
        (("--known", stranger), "names 'nobody', which is not an id of the bundle's corpus"),
        (("--bank", bank), "--bank and --bank-queries belong together"),
        (("--bank-repeat", bank), "--bank-repeat needs --bank"),
        (("--bank", bank, "--bank-queries", known), "holds no losses of 'known'"),
        (
            ("--bank", bank, "--bank-queries", fewer),
            "and the file of queries 3. Give the bank that was made with",
        ),
        (("--known", folder / "absent.jsonl"), "file not found"),
        (("--stress", folder / "text.json"), "does not end with a JSON line"),
        (("--stress", folder / "other.json"), "no object 'kinds'"),
        (("--page", folder / "absent" / "card.html"), "folder not found"),
    ]
    for more, message in cases:
        done = evaluate(run, bundle, *more)
        assert done.code == 2, message
        assert message in " ".join(done.err.split()), message
        assert "Traceback" not in done.err
    assert read_manifest(bundle) == before
