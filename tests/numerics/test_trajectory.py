"""Signals at more than one point of a fine-tune."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import (
    build,
    micro_config,
    micro_language,
    shared_corpus,
    shared_micro_model,
    tiny_queries,
    write_adapter,
    write_jsonl,
    write_micro_model,
)
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import open_bundle
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.kernel import token_kernel
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.models.signals import Form, SignalReader
from wherefrom.attribution.models.trajectory import TrajectoryReader, load_halfway
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.attribution.whitening import SecondMoments, Whitener
from wherefrom.errors import BundleMismatch, ConfigurationError, UnusableModel

FORMS: tuple[Form, ...] = ("forward", "activation")
ROWS = [
    TokenRow((5, 6, 7, 8, 9, 10), 3, (True, True, True)),
    TokenRow((5, 6, 11, 12), 2, (True, True)),
    TokenRow((9, 8, 7, 6, 20), 2, (True, True, True)),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the micro model's fine-tune is taken to have begun with."""
    return write_micro_model(tmp_path_factory.mktemp("start") / "first", seed=9)


def halfway(start_dir: Path) -> Any:
    """The micro model's half-way point."""
    return load_halfway(micro_language(), ModelFolders(shared_micro_model(), start=start_dir))


def test_halfway_is_the_mean(start: Path) -> None:
    """Every weight is the mean of the first and the final one, and the final model is left alone."""
    before = {name: weight.clone() for name, weight in micro_language().model.named_parameters()}
    middle = dict(halfway(start).model.named_parameters())
    first = dict(load_model(start).model.named_parameters())
    assert middle.keys() == first.keys()
    for name, weight in micro_language().model.named_parameters():
        torch.testing.assert_close(middle[name], (first[name] + weight) / 2)
        assert torch.equal(weight, before[name])


def test_halfway_of_an_adapter(tmp_path: Path) -> None:
    """With an adapter the fine-tune began with the bare model: its delta at half strength."""
    adapter = write_adapter(tmp_path / "adapter", shared_micro_model())
    final = load_model(shared_micro_model(), adapter)
    middle = load_halfway(final, ModelFolders(shared_micro_model(), adapter))
    bare, full = dict(micro_language().model.named_parameters()), dict(final.model.named_parameters())
    name = next(name for name in bare if "q_proj" in name)
    moved = dict(middle.model.named_parameters())[name]
    assert float((full[name] - bare[name]).abs().max()) > 1e-3
    torch.testing.assert_close(moved - bare[name], (full[name] - bare[name]) / 2, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_kernel_is_the_sum_over_points(form: Form, start: Path) -> None:
    """Two points' factors as one set of kernel groups give the sum of the two kernels."""
    points = (micro_language(), halfway(start))
    layers = (0, 1, 2, 3) if form == "forward" else (1, 2, 3)

    def factors(reader: Any) -> Factors:
        read = reader.read(ROWS)
        moments = SecondMoments.zeros(read.a.shape[1], read.b.shape[1], read.a.shape[2])
        moments.add(read.a, read.b)
        return Factors(*Whitener.fit(moments).apply(read.a, read.b), read.lengths)

    both = factors(TrajectoryReader(points, form=form, layers=layers, similarity_layer=2))
    alone = [factors(SignalReader(point, form=form, layers=layers, similarity_layer=2)) for point in points]
    expected = sum(token_kernel(one, one) for one in alone)
    torch.testing.assert_close(token_kernel(both, both), expected, rtol=1e-3, atol=1e-3)
    assert float((token_kernel(alone[0], alone[0]) - token_kernel(alone[1], alone[1])).abs().max()) > 1e-2


@pytest.mark.parametrize("form", FORMS)
def test_bundle_with_midpoint(form: Form, start: Path, tmp_path: Path) -> None:
    """Another order than at the final weights alone; loss and similarity stay those of the audited model."""
    model, corpus = shared_micro_model(), shared_corpus(40)
    build(model, corpus, tmp_path / "one", form=form)
    manifest = build(model, corpus, tmp_path / "two", form=form, start=start, midpoint=True)
    assert manifest.parameters.midpoint
    assert manifest.model.start_folder == "first"
    asked, _ = read_queries(write_jsonl(tmp_path / "queries.jsonl", tiny_queries(3)))
    found = []
    for name, start_dir in (("one", None), ("two", start)):
        bundle = open_bundle(tmp_path / name, ModelFolders(model, start=start_dir))
        engine = LanguageAttributor(bundle)
        signals = signals_of_all(engine, prepare_all(engine, asked, max_tokens=64, over_long="truncate"))
        found.append((exact_scores(bundle, signals, lambda *_: None), signals))
    (scores, signals), (wider, both) = found
    assert abs(scores - wider).max() > 1e-3
    assert [one.signals.loss for one in signals] == pytest.approx([one.signals.loss for one in both])


def test_wrong_start(start: Path, tmp_path: Path) -> None:
    """Other first weights than those the bundle was built with, none at all, another shape, or two of them: said plainly."""
    model = shared_micro_model()
    build(model, shared_corpus(40), tmp_path / "bundle", start=start, midpoint=True)
    other = write_micro_model(tmp_path / "other", seed=10)
    with pytest.raises(BundleMismatch, match="other first weights"):
        open_bundle(tmp_path / "bundle", ModelFolders(model, start=other))
    with pytest.raises(ConfigurationError, match="give the adapter"):
        open_bundle(tmp_path / "bundle", ModelFolders(model))
    wide = write_micro_model(tmp_path / "wide", micro_config(intermediate_size=64))
    with pytest.raises(UnusableModel, match="differ from the audited model's in name or shape"):
        build(model, shared_corpus(40), tmp_path / "never", start=wide, midpoint=True)
