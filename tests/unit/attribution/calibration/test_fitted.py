"""Conformal p-values on simulated nulls, the file of a calibration, and fits from judged outputs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import shared_micro_bundle
from wherefrom.attribution.calibrating import (
    Outputs,
    fit_calibration,
    fit_effects,
    split_by_group,
    write_calibrated,
)
from wherefrom.attribution.calibration.evidence import FEATURES
from wherefrom.attribution.calibration.fitted import (
    BANK_CORPUS_SHA256,
    CALIBRATION,
    CORPUS_SHA256,
    Calibration,
    EffectCurve,
    conformal_p,
    rounded_up,
)
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.errors import BundleCorrupt, ConfigurationError

GROUPS = np.arange(50, dtype=np.int32)


def judged(generator: np.random.Generator, *, known: bool = False) -> CitationFeatures:
    """Ten citations of random features; the first one of a known output stands out."""
    features = generator.normal(size=(10, len(FEATURES)))
    if known:
        features[0] += 2.5
    rows = generator.permutation(50)[:10]
    return CitationFeatures(list(range(10)), features, rows, generator.normal(size=3))


def outputs(seed: int = 0, controls: int = 600, known: int = 120) -> tuple[Outputs, Outputs]:
    """Control outputs in groups of ten, and known outputs whose cause is their first citation."""
    generator = np.random.default_rng(seed)
    ours = [judged(generator, known=True) for _ in range(known)]
    return (
        Outputs(
            [judged(generator) for _ in range(controls)], groups=[f"g{i // 10}" for i in range(controls)]
        ),
        Outputs(ours, gold=[[int(one.rows[0])] for one in ours]),
    )


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    """Fitted on simulated outputs."""
    controls, known = outputs()
    effects = EffectCurve("bank", 0.5, np.array([-0.1, 0.0, 0.5]), np.array([0.0, 0.0, 0.2]))
    return fit_calibration(controls, known, groups=GROUPS, effects=effects, date="2026-01-01")


@pytest.mark.parametrize("level", [0.05, 0.1, 0.3])
def test_p_values_are_valid_on_a_null(level: float) -> None:
    """Over many calibrations the rate of p <= level is the level, within binomial bounds; p is never 0."""
    generator = np.random.default_rng(11)
    trials, hits = 4000, 0
    for _ in range(trials):
        scores = generator.normal(size=100)
        p = conformal_p(float(scores[0]), np.sort(scores[1:]))
        assert p >= 1 / 100
        hits += p <= level
    spread = 4 * np.sqrt(level * (1 - level) / trials)
    assert level - 0.01 - spread <= hits / trials <= level + spread


def test_p_value_is_the_written_count_and_falls() -> None:
    """(1 + number as large) / (n + 1), ties as large; larger scores have no larger p."""
    null = np.sort(np.array([0.0, 1.0, 1.0, 2.0]))
    assert [conformal_p(score, null) for score in (-1, 0, 1, 1.5, 2, 3)] == [1, 1, 0.8, 0.4, 0.4, 0.2]


def test_stored_null_is_rounded_up() -> None:
    """Rounding never makes a p-value smaller."""
    scores = np.array([0.12341, -0.55559, 0.1])
    assert (rounded_up(scores) >= np.sort(scores)).all()
    np.testing.assert_allclose(rounded_up(scores), np.sort(scores), atol=1e-4)


def test_realised_rates_of_a_fitted_calibration(calibration: Calibration) -> None:
    """New controls pass at the level or less, within binomial bounds; known outputs pass nearly always."""
    controls, known = outputs(seed=1, controls=1000)
    passed = [not calibration.abstains(calibration.conformal_p(one.features)) for one in controls.queries]
    assert np.mean(passed) <= 0.1 + 4 * np.sqrt(0.1 * 0.9 * (1 / 1000 + 1 / 300))
    found = [not calibration.abstains(calibration.conformal_p(one.features)) for one in known.queries]
    assert np.mean(found) > 0.9


def test_confidence_names_the_cause(calibration: Calibration) -> None:
    """High for the first citation of known outputs, low for controls; members of a group share; never above 1."""
    controls, known = outputs(seed=2)
    ours = np.array([calibration.confidence(one.features, one.rows) for one in known.queries])
    theirs = np.array([calibration.confidence(one.features, one.rows) for one in controls.queries])
    assert np.median(ours[:, 0]) > 0.9
    assert theirs.max(axis=1).mean() < 0.3
    assert (ours.sum(axis=1) <= 1 + 1e-9).all()
    one = known.queries[0]
    together = calibration.confidence(one.features, np.zeros(10, dtype=np.int64))
    assert together is not None
    np.testing.assert_allclose(together, ours[0].sum())


def test_confidence_does_not_fall_with_the_number_of_citations(calibration: Calibration) -> None:
    """It was fitted on ten: fifty citations leave the first ten as they are."""
    _, known = outputs(seed=6)
    first, more = known.queries[0], outputs(seed=7)[0].queries[:4]
    ten = calibration.confidence(first.features, np.arange(10))
    fifty = calibration.confidence(
        np.concatenate([first.features, *(one.features for one in more)]), np.arange(50)
    )
    assert ten is not None
    assert fifty is not None
    np.testing.assert_allclose(fifty[:10], ten)
    assert ((fifty > 0) & (fifty <= 1)).all()


def test_without_known_outputs(calibration: Calibration) -> None:
    """p-values hold, and there is no confidence."""
    controls, _ = outputs(seed=3)
    plain = fit_calibration(controls, None, groups=GROUPS)
    one = outputs(seed=4)[1].queries[0]
    p = plain.conformal_p(one.features)
    assert p is not None
    assert p < 0.1
    assert plain.confidence(one.features, one.rows) is None
    assert "no outputs with known causes" in str(plain.reason)
    assert calibration.reason is None


def test_few_controls() -> None:
    """Below 500 a warning, below 100 an error; all of one group is an error too."""
    few, known = outputs(controls=200)
    assert "only 200 control outputs" in fit_calibration(few, known, groups=GROUPS).warnings[0]
    enough, _ = outputs(controls=500)
    assert fit_calibration(enough, known, groups=GROUPS).warnings == ()
    with pytest.raises(ConfigurationError, match="99 control outputs; at least 100"):
        fit_calibration(outputs(controls=99)[0], known, groups=GROUPS)
    with pytest.raises(ConfigurationError, match="same `group`"):
        fit_calibration(replace(few, groups=["g"] * 200), known, groups=GROUPS)
    uneven = replace(few, groups=["many"] * 190 + ["few"] * 10)
    with pytest.raises(ConfigurationError, match="one half of the controls has only 10"):
        fit_calibration(uneven, known, groups=GROUPS)
    thin = replace(few, groups=["many"] * 160 + ["few"] * 40)
    assert "one half of the controls has only 40" in fit_calibration(thin, known, groups=GROUPS).warnings[1]
    strangers = replace(known, gold=[[int(np.setdiff1d(GROUPS, one.rows)[0])] for one in known.queries])
    with pytest.raises(ConfigurationError, match="none of the 120 known outputs cites its cause"):
        fit_calibration(few, strangers, groups=GROUPS)


def test_split_keeps_groups_together_whatever_the_order() -> None:
    """No group in both halves, halves of like size, and the same groups when the file is shuffled."""
    names = [f"g{i % 37}" for i in range(400)]
    fit, null = split_by_group(names)
    halves = [{names[i] for i in part} for part in (fit, null)]
    assert not halves[0] & halves[1]
    assert sorted(fit + null) == list(range(400))
    assert abs(len(fit) - len(null)) <= 12
    again, _ = split_by_group(names[::-1])
    assert {names[::-1][i] for i in again} == halves[0]


def test_file(calibration: Calibration, tmp_path: Path) -> None:
    """Everything survives the file, to the decimals that are stored; what it was fitted on too."""
    calibration.save(tmp_path)
    again = Calibration.load(tmp_path)
    one = outputs(seed=5)[1].queries[3]
    assert again.conformal_p(one.features) == calibration.conformal_p(one.features)
    np.testing.assert_array_equal(
        again.confidence(one.features, one.rows), calibration.confidence(one.features, one.rows)
    )
    assert again.novelty_p(one.distances) == calibration.novelty_p(one.distances)
    assert again.fitted_on["controls"] == 600
    assert again.effects is not None
    assert again.effects.effect(np.array([-1.0, 0.25, 9.0])).tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert again.effects.label == "bank, alpha 0.5"


def test_another_form_is_refused(tmp_path: Path) -> None:
    """Scores of two forms have other scales; a calibration names its form, and says so in a bundle of another one."""
    controls, known = outputs(controls=200)
    fitted = fit_calibration(controls, known, groups=GROUPS, form="activation")
    fitted.check_form("activation")
    with pytest.raises(ConfigurationError, match=r"form `activation`, and the bundle has the form `adapter`"):
        fitted.check_form("adapter")
    with pytest.raises(ConfigurationError, match="the bundle has the form `forward`"):
        write_calibrated(shared_micro_bundle(), tmp_path / "out", fitted)
    fit_calibration(controls, known, groups=GROUPS).check_form("adapter")  # one of before does not say


@pytest.mark.parametrize("which", [CORPUS_SHA256, BANK_CORPUS_SHA256])
def test_other_rows_are_refused(tmp_path: Path, which: str) -> None:
    """As many training examples, but not these: neither written into the bundle nor opened with it. One of before does not say its rows."""
    fitted = fit_calibration(*outputs(controls=200), groups=GROUPS)
    assert not fitted.check_corpus({"a" * 64})
    assert replace(fitted, fitted_on={CORPUS_SHA256: "a" * 64}).check_corpus({"a" * 64})
    foreign = replace(fitted, fitted_on={which: "b" * 64})
    with pytest.raises(ConfigurationError, match="fitted on other training examples"):
        foreign.check_corpus({"a" * 64})
    with pytest.raises(ConfigurationError, match="calibrate the bundle itself"):
        write_calibrated(shared_micro_bundle(), tmp_path / "out", foreign)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 9}, "schema 9"),
        ({"null": [1.0, float("nan")]}, "finite"),
        ({"null": []}, "finite"),
        ({"queries": {"intercept": 0.0, "features": {}}}, "other features"),
        ({"novelty": {"centre": [0], "scale": [1], "null": [0]}}, "novelty"),
        ({"effects": {"basis": "b", "alpha": 0.5, "scores": [0, 1], "nats": [0]}}, "as many scores"),
        ({"level": "high"}, "not a calibration"),
    ],
)
def test_bad_files(calibration: Calibration, tmp_path: Path, change: dict, message: str) -> None:
    """Refused with what is wrong."""
    (tmp_path / CALIBRATION).write_text(json.dumps(calibration.to_json() | change))
    with pytest.raises(BundleCorrupt, match=message):
        Calibration.load(tmp_path)


def test_missing_and_unfitted_files(tmp_path: Path) -> None:
    """A bundle says why it is not calibrated; one without the file is corrupt."""
    with pytest.raises(BundleCorrupt, match="not a calibration"):
        Calibration.load(tmp_path)
    (tmp_path / CALIBRATION).write_text('{"fitted": false, "reason": "no controls"}')
    empty = Calibration.load(tmp_path)
    one = outputs(controls=1)[0].queries[0]
    assert (empty.fitted, empty.reason) == (False, "no controls")
    assert empty.conformal_p(one.features) is None
    assert empty.confidence(one.features, one.rows) is None
    assert empty.novelty_p(one.distances) is None
    assert not empty.abstains(None)


def test_effects_are_found_again() -> None:
    """Losses made from known effects give a curve near them; scores without any effect are refused."""
    generator = np.random.default_rng(13)
    scores = generator.gamma(0.3, 0.2, size=(60, 40)).astype(np.float32)
    kept = generator.random((400, 40)) < 0.5
    noise = generator.normal(scale=0.02, size=(400, 60))
    losses = (3.0 - kept @ (0.5 * scores.T) + noise).astype(np.float32)
    curve = fit_effects(scores, kept, losses, basis="made up")
    np.testing.assert_allclose(curve.effect(np.array([0.05, 0.2, 0.4])), [0.025, 0.1, 0.2], atol=0.02)
    assert curve.alpha == pytest.approx(0.5, abs=0.02)
    with pytest.raises(ConfigurationError, match="no larger measured effect"):
        fit_effects(-scores, kept, losses, basis="made up")
    with pytest.raises(ConfigurationError, match="40 training examples and losses of 60 queries"):
        fit_effects(scores[:5], kept, losses, basis="made up")
