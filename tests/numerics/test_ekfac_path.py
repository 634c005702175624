"""The path from the base model to the audited one: its points, its sums and what a bundle keeps of it."""

import functools
import math
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.numerics.tolerances import FLOAT32
from tests.tiny import micro_config, quiet, random_row, write_adapter, write_micro_model
from wherefrom.attribution.ekfac.factors import fit_ekfac
from wherefrom.attribution.ekfac.path import FOLDER, EkfacPath, PathScores, build_path, load_path
from wherefrom.attribution.ekfac.scores import EkfacScorer, EkfacScores
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.trajectory import model_between
from wherefrom.errors import BundleMismatch, ConfigurationError, UnusableModel

ROWS = [random_row(3 + step % 3, 2 + step, seed=step) for step in range(6)]
QUERIES = [random_row(4, 5, seed=50), ROWS[2]]
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}


@functools.cache
def models() -> tuple[LanguageModel, LanguageModel]:
    """A base model, and an audited one: the base with an adapter merged."""
    with tempfile.TemporaryDirectory() as folder:
        base = write_micro_model(Path(folder) / "base", micro_config(**SMALL))
        return load_model(base), load_model(base, write_adapter(Path(folder) / "adapter", base))


def both_points() -> tuple[LanguageModel, LanguageModel]:
    """The audited model and the one half-way to it."""
    base, audited = models()
    return audited, model_between(base, audited, 0.5)


def assert_same_weights(one: LanguageModel, other: LanguageModel) -> None:
    """Weight by weight."""
    for mine, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def other_model(**changes: int) -> LanguageModel:
    """A model of other weights, and of another shape where one is given."""
    with tempfile.TemporaryDirectory() as folder:
        return load_model(
            write_micro_model(Path(folder) / "model", micro_config(**(SMALL | changes)), seed=9)
        )


def test_points_lie_on_the_line() -> None:
    """0 is the base, 1 the audited model itself, and between them every weight is in proportion; neither is changed."""
    base, audited = models()
    before = [weight.clone() for weight in audited.model.parameters()]
    assert_same_weights(model_between(base, audited, 1.0), audited)
    quarter = model_between(base, audited, 0.25)
    moved = 0
    for start, end, weight in zip(
        base.model.parameters(), audited.model.parameters(), quarter.model.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, 0.75 * start + 0.25 * end, **FLOAT32)
        moved += int(not torch.equal(start, end))
    assert moved == 4, "the adapter has two layers in each of two blocks"
    for weight, old in zip(audited.model.parameters(), before, strict=True):
        assert torch.equal(weight, old)


def test_scores_are_sums_over_points(tmp_path: Path) -> None:
    """Every point has its own factors and counts alike: its dot products over their root mean square."""
    points = both_points()
    path = build_path(points, ROWS, bundle=tmp_path, progress=quiet)
    assert path.points == 2
    expected, own = torch.zeros(2, 6), []
    for language in points:
        found = EkfacScorer(language, fit_ekfac(language, ROWS, progress=quiet)).scores(QUERIES, ROWS)
        own.append(found.cosine)
        for query, row in enumerate(found.dot.tolist()):
            size = math.sqrt(sum(value * value for value in row) / len(row))
            expected[query] += torch.tensor([value / size for value in row])
    scores = path.scores(QUERIES, ROWS)
    torch.testing.assert_close(scores.balanced, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(scores.cosine, (own[0] + own[1]) / 2, rtol=1e-3, atol=1e-4)
    assert float((own[0] - own[1]).abs().max()) > 0.01, "the points must differ, or this test says nothing"
    assert float(scores.cosine[1, 2]) == pytest.approx(1.0, abs=1e-4)
    assert int(scores.balanced[1].argmax()) == int(scores.cosine[1].argmax()) == 2


def test_a_point_without_gradients_adds_nothing() -> None:
    """A query that one point knows by heart is scored by the others."""
    nothing = EkfacScores(torch.zeros(1, 3), torch.zeros(1), torch.ones(3))
    something = EkfacScores(torch.tensor([[3.0, -4.0, 0.0]]), torch.ones(1), torch.ones(3))
    alone, both = PathScores.of([something]), PathScores.of([nothing, something])
    torch.testing.assert_close(both.balanced, alone.balanced)
    torch.testing.assert_close(both.balanced[0], torch.tensor([3.0, -4.0, 0.0]) / (25 / 3) ** 0.5)


def test_bundle_keeps_the_path(tmp_path: Path) -> None:
    """What is read back scores as what was built, candidates by their stored norms too."""
    built = build_path(both_points(), ROWS, bundle=tmp_path, progress=quiet)
    read = load_path(both_points(), tmp_path)
    assert read is not None
    expected = built.scores(QUERIES, ROWS)
    torch.testing.assert_close(read.scores(QUERIES, ROWS).balanced, expected.balanced, **FLOAT32)
    numbers = np.array([5, 2, 0])
    some = read.candidate_scores(QUERIES, [ROWS[number] for number in numbers], numbers)
    torch.testing.assert_close(some.cosine, expected.cosine[:, numbers], rtol=1e-3, atol=1e-4)


def test_without_a_base_model(tmp_path: Path) -> None:
    """The audited model is the only point, and the scores are plain EK-FAC's."""
    _, audited = models()
    assert load_path([audited], tmp_path) is None
    built = build_path([audited], ROWS, bundle=tmp_path, progress=quiet)
    assert built.points == 1
    plain = EkfacScorer(audited, fit_ekfac(audited, ROWS, progress=quiet)).scores(QUERIES, ROWS)
    torch.testing.assert_close(built.scores(QUERIES, ROWS).points[0].dot, plain.dot, rtol=1e-3, atol=1e-2)
    read = load_path([audited], tmp_path)
    assert read is not None
    assert read.points == 1


def test_wrong_models_and_files_are_told(tmp_path: Path) -> None:
    """A base model of another shape, factors of another model, an empty path."""
    base, audited = models()
    for wrong in (other_model(intermediate_size=32), other_model(num_hidden_layers=1)):
        with pytest.raises(UnusableModel, match="differ from the audited model's in name or shape"):
            model_between(wrong, audited, 0.5)
    build_path([audited], ROWS, bundle=tmp_path, progress=quiet)
    with pytest.raises(BundleMismatch):
        load_path([other_model(intermediate_size=32)], tmp_path)
    with pytest.raises(ConfigurationError, match="at least one point"):
        EkfacPath([])
    assert (tmp_path / FOLDER).is_dir()
    assert base is not audited
