"""The form `adapter-forward`: error signals predicted by a learned map, without a backward pass."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.numerics.test_adapted import ALL_LINEAR, ROWS
from tests.numerics.tolerances import FLOAT32
from tests.tiny import build, quiet, shared_corpus, shared_micro_model, tiny_rows, write_adapter, write_jsonl
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import MANIFEST, hash_folder, read_card, read_manifest
from wherefrom.attribution.models.adapted import AdapterReader, ForwardAdapterReader
from wherefrom.attribution.models.adjoint import ADJOINT, Adjoint
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.reading import AdapterReading, make_reader
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.offline import (
    attribute_all,
    exact_scores,
    prepare_all,
    read_queries,
    signals_of_all,
)
from wherefrom.attribution.ranking_metrics import spearman_rows
from wherefrom.errors import BundleCorrupt

ROWS_BUILT = 80


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    """The micro model with an adapter on all of its linear layers."""
    folder = tmp_path_factory.mktemp("adjoint") / "lora"
    return ModelFolders(
        shared_micro_model(), write_adapter(folder, shared_micro_model(), target_modules=ALL_LINEAR)
    )


@pytest.fixture(scope="module")
def path(folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the form."""
    out = tmp_path_factory.mktemp("forward") / "bundle"
    build(folders.model, shared_corpus(ROWS_BUILT), out, adapter=folders.adapter, form="adapter-forward")
    return out


@pytest.fixture(scope="module")
def bundle(path: Path, folders: ModelFolders) -> Bundle:
    """The bundle, opened."""
    return open_bundle(path, folders)


@pytest.fixture(scope="module")
def exact(bundle: Bundle, folders: ModelFolders) -> AdapterReader:
    """The reader that forms gradients, over the same model."""
    reader = make_reader(
        bundle.points,
        form="adapter",
        layers=(),
        similarity_layer=bundle.manifest.parameters.similarity_layer,
        adapter=AdapterReading(folders.adapter),
    )
    assert isinstance(reader, AdapterReader)
    return reader


@pytest.fixture(scope="module")
def held_out(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[TokenRow]:
    """Rows that the map was not fitted on, as tokens."""
    file = write_jsonl(tmp_path_factory.mktemp("held") / "rows.jsonl", tiny_rows(ROWS_BUILT + 16)[-16:])
    engine = LanguageAttributor(bundle)
    prepared = prepare_all(engine, read_queries(file)[0], max_tokens=256, over_long="reject")
    return [one.row for one in prepared]


def cosines(found: Tensor, expected: Tensor) -> float:
    """Mean cosine over tokens and layers."""
    return float(torch.nn.functional.cosine_similarity(found, expected, dim=2).mean())


def test_the_map_is_the_ridge_solution() -> None:
    """In parts as at once, against a least-squares problem with the penalty as further rows; and what is stored is what was fitted."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 8, generator=generator)
    x[:, :4] *= 0.01
    v = torch.randn(60, 3, 2, generator=generator)
    found = Adjoint.fit([(x[:25], v[:25]), (x[25:], v[25:])], ridge=0.5)
    values, vectors = torch.linalg.eigh((x[:, :4].T @ x[:, :4]).double() / 60)
    scale = torch.eye(8, dtype=torch.float64)
    scale[:4, :4] = vectors @ ((values + 0.1 * values.mean()) ** -0.5).diag() @ vectors.T
    scaled = x.double() @ scale
    penalty = (0.5 * scaled.square().sum() / 60).sqrt() * torch.eye(8, dtype=torch.float64)
    wide = torch.cat([scaled, penalty])
    targets = torch.cat([v.flatten(1).double(), torch.zeros(8, 6, dtype=torch.float64)])
    expected = scale @ torch.linalg.lstsq(wide, targets).solution
    torch.testing.assert_close(found.weights, expected.float(), rtol=1e-3, atol=1e-4)


def test_what_is_stored_is_what_was_fitted(tmp_path: Path) -> None:
    """Up to float16, also where the two halves of the map differ by orders of magnitude."""
    fitted = Adjoint(torch.cat([torch.randn(4, 6) * 1e3, torch.randn(4, 6)]))
    fitted.save(tmp_path / ADJOINT)
    torch.testing.assert_close(Adjoint.load(tmp_path / ADJOINT).weights, fitted.weights, rtol=2e-3, atol=1e-2)


def test_predicted_error_signals_resemble_the_exact_ones(
    bundle: Bundle, exact: AdapterReader, held_out: list[TokenRow]
) -> None:
    """On rows that the map has not seen: clearly above zero, and above a map whose outputs are shuffled over the layers' directions."""
    reader = bundle.reader
    assert isinstance(reader, ForwardAdapterReader)
    expected, found = exact.read(held_out), reader.read(held_out)
    near = cosines(found.b, expected.b)
    order = torch.randperm(found.b[0].numel(), generator=torch.Generator().manual_seed(1))
    shuffled = found.b.flatten(1)[:, order].view(found.b.shape)
    assert near > 0.2
    assert near > 3 * abs(cosines(shuffled, expected.b))
    torch.testing.assert_close(found.a, expected.a, **FLOAT32)
    torch.testing.assert_close(found.loss, expected.loss, **FLOAT32)
    torch.testing.assert_close(found.pooled, expected.pooled, **FLOAT32)
    assert found.lengths == expected.lengths


def test_no_gradient_is_formed(
    bundle: Bundle, held_out: list[TokenRow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for an audit: neither a graph nor a backward pass; the model is left as it was."""
    monkeypatch.setattr(torch.autograd, "grad", None)
    monkeypatch.setattr(torch.autograd, "backward", None)
    found = bundle.reader.read(held_out[:2])
    assert not found.a.requires_grad
    assert not found.b.requires_grad
    layers = [bundle.language.model.get_submodule(one.name) for one in bundle.reader.adapted]  # type: ignore[attr-defined]  # the form's reader
    assert not any(one._forward_hooks for one in layers)


def test_predictions_do_not_depend_on_the_batch_or_the_pass(bundle: Bundle) -> None:
    """One row alone, in a batch, and by the plain pass; a token outside of a span has no error of its own."""
    reader = bundle.reader
    assert isinstance(reader, ForwardAdapterReader)
    assert reader.split_pass
    together = reader.read(ROWS)
    reader.split_pass = False
    alone = [reader.read([row]) for row in ROWS]
    reader.split_pass = True
    for name in ("a", "b", "pooled", "loss"):
        expected = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), expected, rtol=1e-3, atol=1e-4)
    assert together.lengths == (3, 2, 3)


def test_scores_resemble_those_of_the_exact_form(
    bundle: Bundle, exact: AdapterReader, held_out: list[TokenRow], tmp_path: Path
) -> None:
    """Predicted cores against stored exact ones rank training examples as exact cores do, more or less; citations carry their parts."""
    file = write_jsonl(tmp_path / "queries.jsonl", tiny_rows(ROWS_BUILT + 16)[-16:])
    engine = LanguageAttributor(bundle)
    prepared = prepare_all(engine, read_queries(file)[0], max_tokens=256, over_long="reject")
    read = signals_of_all(engine, prepared)
    found = exact_scores(bundle, read, quiet)
    signals = exact.read([one.row for one in prepared])
    u, v = bundle.whitener.apply(signals.a, signals.b)
    cores = torch.stack(
        [
            torch.einsum("tgi,tgj->gij", b, a).flatten()
            for a, b in zip(u.split(signals.lengths), v.split(signals.lengths), strict=True)
        ]
    )
    held = bundle.store.cores(np.arange(ROWS_BUILT))  # type: ignore[attr-defined]  # the form keeps cores
    expected = (cores @ held.T).numpy() / bundle.store.norms
    assert spearman_rows(found, expected).mean() > 0.5
    (answer,) = attribute_all(engine, prepared[:1], top_k=3, opponents=1, progress=quiet)
    assert all(one.modules and one.carried_by for one in answer.citations)


def test_the_bundle_says_what_it_is_and_refuses_a_broken_map(
    path: Path, folders: ModelFolders, tmp_path: Path
) -> None:
    """The manifest and the card name the form; a map that is missing is a corrupt bundle."""
    assert read_manifest(path).parameters.form == "adapter-forward"
    assert "without a backward pass" in read_card(path)["coverage"]["weights"]
    broken = Path(shutil.copytree(path, tmp_path / "broken"))
    (broken / ADJOINT).unlink()
    manifest = read_manifest(broken, verify=False).model_copy(update={"files": hash_folder(broken)})
    (broken / MANIFEST).write_bytes(manifest.sealed().to_bytes())
    with pytest.raises(BundleCorrupt, match=ADJOINT):
        open_bundle(broken, folders)
