"""`wherefrom calibrate` on the tiny model, what its bundle then cites with, and bad input."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import TINY_MODEL, TINY_ROWS, opened, shared_bundle, tiny_rows, write_jsonl
from tests.unit.cli.conftest import Run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.bundles.manifest import read_card, read_manifest
from wherefrom.attribution.calibration.fitted import Calibration
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.offline import prepare_all, read_queries
from wherefrom.attribution.verdict_causes import read_verdicts
from wherefrom.records import Attribution
from wherefrom.retraining.bank_content import UNTIED

RunCommand = Callable[..., Run]


@pytest.fixture
def controls(tmp_path: Path) -> Path:
    """Rows of the tiny corpus that are not in the bundle: their cause is not there."""
    rows = [row | {"group": row["id"][-1]} for row in tiny_rows()[TINY_ROWS:]]
    assert len(rows) >= 100
    return write_jsonl(tmp_path / "controls.jsonl", rows)


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Rows of the bundle, each its own cause, and one output of the same kind without a known cause."""
    rows = [row | {"gold": [row["id"]]} for row in tiny_rows(40)]
    return write_jsonl(tmp_path / "known.jsonl", [*rows, tiny_rows()[-1] | {"gold": []}])


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """Losses that fall when a query's own row was kept."""
    kept = np.random.default_rng(0).random((40, TINY_ROWS)) < 0.5
    losses = 3.0 - kept[:, :41].astype(np.float32)
    np.savez(
        tmp_path / "bank.npz", kept=kept, query_loss=losses, corpus_loss=np.zeros(kept.shape, np.float32)
    )
    return tmp_path / "bank.npz"


def calibrate(run: RunCommand, controls: Path, out: Path, *more: str) -> Run:
    """`wherefrom calibrate` with the tiny bundle."""
    named = {"--bundle": shared_bundle(), "--model": TINY_MODEL, "--controls": controls, "--out": out}
    return run("calibrate", *(str(word) for pair in named.items() for word in pair), *more)


def cite(bundle: Path, queries: Path) -> list[Attribution]:
    """Attributions of the first rows of a file."""
    attributor = LanguageAttributor(open_bundle(bundle, ModelFolders(TINY_MODEL)))
    prepared = prepare_all(attributor, read_queries(queries)[0][:8], max_tokens=512, over_long="truncate")
    return attributor.attribute(prepared, top_k=3, opponents=2)


def test_calibrated_copy(run: RunCommand, controls: Path, known: Path, bank: Path) -> None:
    """An intact bundle of another name whose citations carry everything; the old one is untouched."""
    before = read_manifest(shared_bundle())
    out = bank.parent / "calibrated"
    words = ["--known", str(known), "--bank", str(bank), "--bank-queries", str(known)]
    done = calibrate(run, controls, out, *words, "--bank-losses", "queries", "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert (printed["known"], printed["controls"]) == (40, len(tiny_rows()) - TINY_ROWS)
    assert printed["controls_fit"] + printed["controls_null"] == printed["controls"]
    assert "fewer than 500" in printed["warnings"][0]
    assert run("bundle", "verify", str(out)).code == 0
    after = read_manifest(out)
    assert printed["name"] == after.name != before.name
    assert read_manifest(shared_bundle()) == before
    assert {name for name in before.files if before.files[name] != after.files[name]} == {
        "calibration.json",
        "card.json",
    }
    said = read_card(out)["calibration"]
    assert said["calibrated"] == "yes"
    assert said["p_values_and_abstention"]
    assert said["fitted_on"]["known"] == 40
    assert read_card(shared_bundle())["calibration"] == {"calibrated": "no"}
    weights = "projection.safetensors"
    assert (out / weights).samefile(shared_bundle() / weights)
    assert not out.with_name(out.name + ".building").exists()
    stored = json.loads((out / "calibration.json").read_text())
    assert stored["fitted_on"]["controls_sha256"] == printed["controls_sha256"]
    assert stored["warnings"] == printed["warnings"]
    assert printed["warnings"][-1] == UNTIED
    assert stored["fitted_on"]["corpus_sha256"] == before.corpus.sha256

    ours, theirs = cite(out, known), cite(out, controls)
    for one in [*ours, *theirs]:
        assert one.conformal_p is not None
        assert one.novelty_p is not None
        assert (one.abstained is None) == (one.conformal_p <= 0.1)
        for citation in one.citations:
            assert (citation.confidence is not None) == (citation.rank > 0)
            assert citation.effect_nats is not None
            assert citation.effect_basis == "bank, alpha 0.5"
    found = [one.citations[0] for one in ours]
    assert (
        np.mean([one.confidence for one in found])
        > 0.5
        > np.mean([one.citations[0].confidence for one in theirs])
    )
    assert np.median([one.conformal_p for one in ours]) < np.median([one.conformal_p for one in theirs])


def test_a_bank_of_as_many_other_rows_is_refused(
    run: RunCommand, controls: Path, known: Path, bank: Path
) -> None:
    """It has the bundle's number of training examples and the file's number of queries, and was made with others."""
    with np.load(bank) as content:
        np.savez(bank, **content, corpus_sha256=np.array("0" * 64))
    words = ["--bank", str(bank), "--bank-queries", str(known), "--bank-losses", "queries"]
    done = calibrate(run, controls, bank.parent / "out", *words)
    assert done.code != 0
    assert "made with another corpus" in done.err
    assert not (bank.parent / "out").exists()


def test_p_does_not_depend_on_how_many_are_cited(
    run: RunCommand, controls: Path, known: Path, tmp_path: Path
) -> None:
    """One citation or twelve: the same ten are judged. Without a bank there are no effects, and the sentence says so."""
    out = tmp_path / "calibrated"
    done = calibrate(run, controls, out, "--known", str(known))
    assert done.code == 0
    assert f"Built calibrated bundle {read_manifest(out).name} in {out}." in done.out
    assert "Effects in nats: none; --bank with --bank-queries fits them." in done.out
    assert "Confidence: fitted on 40 outputs with known causes." in done.out
    assert "warning: only" in done.err
    assert Calibration.load(out).fitted_on["form"] == "forward"
    attributor = LanguageAttributor(open_bundle(out, ModelFolders(TINY_MODEL)))
    prepared = prepare_all(attributor, read_queries(known)[0][:4], max_tokens=512, over_long="truncate")
    few, many = (attributor.attribute(prepared, top_k=count, opponents=0) for count in (1, 12))
    assert [one.conformal_p for one in few] == [one.conformal_p for one in many]
    assert all(citation.confidence is not None for one in many for citation in one.citations)
    assert all(citation.effect_nats is None for one in many for citation in one.citations)


def test_without_calibration_everything_stays_empty(known: Path) -> None:
    """A bundle that was only built makes no claim and does not abstain; duplicates are counted all the same."""
    assert not Calibration.load(shared_bundle()).fitted
    attributor = LanguageAttributor(opened())
    prepared = prepare_all(attributor, read_queries(known)[0][:2], max_tokens=512, over_long="truncate")
    for one in attributor.attribute(prepared, top_k=3, opponents=2):
        assert (one.conformal_p, one.novelty_p, one.abstained) == (None, None, None)
        for citation in one.citations:
            assert (citation.confidence, citation.effect_nats, citation.effect_basis) == (None, None, None)
            assert citation.duplicates >= 0


def test_bad_input(run: RunCommand, controls: Path, known: Path, bank: Path) -> None:
    """Each mistake is one line that says what to do, and leaves nothing behind."""
    tmp_path = bank.parent
    out = tmp_path / "out"
    few = write_jsonl(tmp_path / "few.jsonl", tiny_rows()[TINY_ROWS : TINY_ROWS + 9])
    stranger = write_jsonl(tmp_path / "stranger.jsonl", [tiny_rows(1)[0] | {"gold": ["nobody"]}])
    unlisted = write_jsonl(tmp_path / "unlisted.jsonl", [tiny_rows(1)[0] | {"gold": "x"}])
    cases = [
        (few, (), "9 control outputs; at least 100 are needed"),
        (controls, ("--known", str(stranger)), "names 'nobody', which is not an id of the bundle's corpus"),
        (controls, ("--known", str(unlisted)), "`gold` must be a list"),
        (controls, ("--bank", str(bank)), "--bank and --bank-queries belong together"),
        (controls, ("--bank", str(bank), "--bank-queries", str(known)), "holds no losses of 'known'"),
        (controls, ("--known", str(tmp_path / "absent.jsonl")), "file not found"),
    ]
    for file, more, message in cases:
        done = calibrate(run, file, out, *more)
        assert done.code == 2, message
        assert message in " ".join(done.err.split()), message
        assert "Traceback" not in done.err
    assert not list(tmp_path.glob("out*"))
    out.mkdir()
    assert "already exists" in calibrate(run, controls, out).err


def judged_rows(people: dict[str, bool], outputs: int = 40) -> list[dict]:
    """Outputs whose own row people confirm, and others of its topic that they do not; by name, and whether a key proves it."""
    rows = tiny_rows(TINY_ROWS)

    def others(row: dict) -> list[dict]:
        return [one for one in rows if one["topic"] == row["topic"] and one["id"] != row["id"]][:6]

    return [
        {
            "audit_id": place + 1,
            "bundle": "b",
            "model": "m",
            "messages": row["messages"][:-1],
            "completion": row["messages"][-1]["content"],
            "verdicts": [
                {"example_id": one["id"], "rank": 1, "verdict": verdict, "reviewer": name, "proven": proven}
                for name, proven in people.items()
                for one, verdict in ((row, "confirmed"), *((other, "unrelated") for other in others(row)))
            ],
        }
        for place, row in enumerate(rows[:outputs])
    ]


def few_of(name: str, verdicts: int) -> list[dict]:
    """One output with the first verdicts of somebody."""
    [row] = judged_rows({name: True}, 1)
    return [row | {"verdicts": row["verdicts"][:verdicts]}]


def test_verdicts_of_people_are_known_causes(run: RunCommand, controls: Path, tmp_path: Path) -> None:
    """Confidence comes from them; who they were is kept, and unproven names are told."""
    file = write_jsonl(tmp_path / "verdicts.jsonl", judged_rows({"ann": True, "ben": False}))
    done = calibrate(run, controls, tmp_path / "calibrated", "--verdicts", str(file), "--json")
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    given = 40 * 7 * 2
    assert (printed["known"], printed["verdicts"], printed["people"]) == (40, given, 2)
    assert printed["unproven_verdicts"] == given // 2
    assert f"{given // 2} of {given} verdicts stand under a chosen name" in done.err
    assert Calibration.load(tmp_path / "calibrated").citations is not None


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (judged_rows({"ann": True}), "280 blind verdicts by 1 people"),
        (judged_rows({"ann": True, "ben": True}, 3), "42 blind verdicts by 2 people"),
        ([*judged_rows({"ann": True}), *few_of("ben", 4)], "by 1 people"),
        ([{"audit_id": 1}], "wherefrom export --verdicts"),
    ],
)
def test_too_few_verdicts_or_people_calibrate_nothing(
    run: RunCommand, controls: Path, tmp_path: Path, *, rows: list[dict], told: str
) -> None:
    """One person alone never does, nor a second one who hardly judged."""
    file = write_jsonl(tmp_path / "verdicts.jsonl", rows)
    done = calibrate(run, controls, tmp_path / "calibrated", "--verdicts", str(file))
    assert (done.code, told in done.err) == (2, True), done.err
    assert not (tmp_path / "calibrated").exists()


def test_a_disputed_example_is_no_cause(tmp_path: Path) -> None:
    """More people must confirm it than not; a second look says nothing; what nobody judged is left open."""
    [row] = judged_rows({"ann": True, "ben": True, "cyd": True, "dan": True}, 1)
    verdicts = [one for one in row["verdicts"] if one["verdict"] == "confirmed"]
    many = [row | {"audit_id": number, "verdicts": verdicts} for number in range(1, 41)]
    rows = {name: number for number, name in enumerate({one["example_id"] for one in row["verdicts"]})}
    for others, is_cause in (
        (["confirmed"] * 4, True),
        (["confirmed", "plausible"] * 2, False),
        (["confirmed", "second_look"] * 2, True),
    ):
        changed = [one | {"verdict": verdict} for one, verdict in zip(verdicts, others, strict=True)]
        file = write_jsonl(tmp_path / "verdicts.jsonl", [row | {"verdicts": changed}, *many])
        found = read_verdicts(file, rows)
        assert bool(found.gold[0]) is is_cause
        assert len(found.judged[0]) == 1
