"""LoGra and TrackStar, as written for the comparison with peers, against for-loops over autograd gradients and dense matrices."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.peers.sketches import (
    DAMPING,
    Curvature,
    Sides,
    apply_power,
    features,
    logra,
    mixed_curvatures,
    mixing_share,
    preconditioned,
    principal_sides,
    random_sides,
    sum_products,
    trackstar,
    unit,
)
from benchmarks.peers.subject import IGNORED, Subject, labels_of, pad
from benchmarks.small_model import SmallModel
from tests.numerics.tolerances import FLOAT32
from tests.tiny import micro_config, random_row, write_micro_model
from wherefrom.attribution.ekfac.gradients import LinearTaps
from wherefrom.attribution.models.model import LanguageModel, load_model
from wherefrom.attribution.models.render import TokenRow

ROWS = [random_row(3 + 2 * (step % 4), 2 + 3 * (step % 5), seed=step) for step in range(9)]
QUERIES = [random_row(4, 6, seed=50), random_row(9, 3, seed=51)]
EVALUATION = [random_row(5, 4, seed=70 + step) for step in range(5)]
RANK = 3
#: Sums over rotated gradients in another order: error allowed as a share of the largest value.
SHARE = 2e-4


@functools.cache
def language() -> LanguageModel:
    """Two narrow blocks with random weights."""
    config = micro_config(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    with tempfile.TemporaryDirectory() as folder:
        return load_model(write_micro_model(Path(folder) / "model", config))


@functools.cache
def taps() -> LinearTaps:
    """Its linear layers."""
    return LinearTaps(language())


@functools.cache
def sides() -> dict[str, Sides]:
    """Random projections."""
    return random_sides(taps(), ROWS[0], RANK, 7)


def gradients(row: TokenRow) -> dict[str, Tensor]:
    """dL/dW of each layer for one row alone, token by token, by autograd."""
    model = language().model
    weights = {name: model.get_submodule(name).weight for name in taps().names}
    for weight in weights.values():
        weight.requires_grad_(True)
    logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    loss = torch.zeros(())
    for step in range(len(row.explained)):
        place = row.start + step
        loss = loss - torch.log_softmax(logits[place - 1], dim=-1)[row.ids[place]]
    found = torch.autograd.grad(loss, list(weights.values()))
    for weight in weights.values():
        weight.requires_grad_(False)
    return dict(zip(weights, found, strict=True))


def sketched(rows: list[TokenRow], name: str) -> Tensor:
    """vec(P_O G P_I') row by row, entry by entry."""
    side = sides()[name]
    found = []
    for row in rows:
        gradient = gradients(row)[name]
        entries = [left @ gradient @ right for left in side.left for right in side.right]
        found.append(torch.stack(entries))
    return torch.stack(found).double()


def dense_power(second_moment: Tensor, exponent: float) -> Tensor:
    """(H + d)^exponent by a full decomposition, d = DAMPING x the mean eigenvalue."""
    size = len(second_moment)
    damped = second_moment + DAMPING * second_moment.trace() / size * torch.eye(size, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(damped)
    return vectors @ torch.diag(values**exponent) @ vectors.T


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to a share of the largest value."""
    assert (found.double() - expected).abs().max() <= SHARE * expected.abs().max()


def test_features_are_projected_gradients():
    """A batch of padded rows gives what each row's own autograd gradient gives, projected from both sides."""
    found = features(taps(), ROWS, sides())
    for name in taps().names:
        close(found[name], sketched(ROWS, name))


def test_random_projections_keep_inner_products():
    """Entries have variance 1/p: averaged over many seeds, projected inner products are the gradients' own (a missing 1/sqrt(p) shows here)."""
    name = taps().names[0]
    one, other = gradients(ROWS[0])[name], gradients(ROWS[1])[name]
    alone, products = LinearTaps(language(), [name]), []
    for seed in range(600):
        side = random_sides(alone, ROWS[0], 8, seed)[name]
        first, second = (side.left @ gradient @ side.right.T for gradient in (one, one + other))
        products.append(float((first * second).sum()))
    assert sum(products) / len(products) == pytest.approx(float((one * (one + other)).sum()), rel=0.1)


def moments_of(name: str) -> tuple[Tensor, Tensor]:
    """Sums of g g' and x x' over the positions of each row alone, the last token left out."""
    module = language().model.get_submodule(name)
    sums = [torch.zeros(size, size) for size in module.weight.shape]
    for row in ROWS:
        held: list[Tensor] = []

        def keep(_module, inputs, output, held=held):
            held += [inputs[0], output]

        handle = module.register_forward_hook(keep)
        module.weight.requires_grad_(True)
        logits = language().model(input_ids=torch.tensor([row.ids[:-1]])).logits[0, row.start - 1 :]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(row.ids[row.start :]), reduction="sum")
        (wrong,) = torch.autograd.grad(loss, held[1])
        handle.remove()
        module.weight.requires_grad_(False)
        for total, vectors in zip(sums, (wrong[0], held[0][0].detach()), strict=True):
            for vector in vectors:
                total.add_(torch.outer(vector, vector))
    return sums[0], sums[1]


def test_principal_projections_are_leading_eigenvectors():
    """Both sides are orthonormal and carry the largest eigenvalues of mean g g' and mean x x', largest first."""
    found = principal_sides(taps(), ROWS, RANK)
    for name in (taps().names[0], taps().names[-1]):
        for one, moments in zip((found[name].left, found[name].right), moments_of(name), strict=True):
            torch.testing.assert_close(one @ one.T, torch.eye(RANK), **FLOAT32)
            largest = torch.linalg.eigvalsh(moments.double()).flip(0)[:RANK]
            close(one @ moments @ one.T, torch.diag(largest))


def test_logra_against_dense_matrices():
    """sum_layers z_q' (H + d)^-1 z_z with the inverse formed in full."""
    corpus = features(taps(), ROWS, sides())
    found = sum_products(features(taps(), QUERIES, sides()), preconditioned(corpus, DAMPING))
    expected = torch.zeros(len(QUERIES), len(ROWS), dtype=torch.float64)
    for name in taps().names:
        train, asked = sketched(ROWS, name), sketched(QUERIES, name)
        outer = torch.stack([torch.outer(one, one) for one in train])
        inverse = dense_power(outer.mean(dim=0), -1.0)
        for q, query in enumerate(asked):
            for z, example in enumerate(train):
                expected[q, z] += query @ inverse @ example
    close(found, expected)


def test_trackstar_against_dense_matrices():
    """Cosine over all layers jointly, with R^(-1/2) on both sides before anything is normalised."""
    corpus, evaluation = features(taps(), ROWS, sides()), features(taps(), EVALUATION, sides())
    mixed = mixed_curvatures(corpus, evaluation, DAMPING)
    asked = features(taps(), QUERIES, sides())
    found = sum_products(unit(apply_power(asked, mixed, -0.5)), unit(apply_power(corpus, mixed, -0.5)))

    dense = {name: [sketched(rows, name) for rows in (ROWS, EVALUATION, QUERIES)] for name in taps().names}
    moments = {name: [one.T @ one / len(one) for one in three[:2]] for name, three in dense.items()}
    # There are fewer eigenvalues than the 1,000th: the curves meet at the last one, which no rounding may decide.
    share = mixing_share(corpus, evaluation, 1000)
    sides_of = []
    for rows in (2, 0):
        parts = []
        for name, three in dense.items():
            train, evaluated = moments[name]
            parts.append(three[rows] @ dense_power(share * evaluated + (1 - share) * train, -0.5))
        sides_of.append(torch.cat(parts, dim=1))
    queries, examples = (one / one.norm(dim=1, keepdim=True) for one in sides_of)
    close(found, queries @ examples.T)


def test_mixing_share_lets_the_curves_meet():
    """The k-th eigenvalue of l R_eval is that of (1 - l) R_train, all layers pooled and sorted."""
    corpus, evaluation = features(taps(), ROWS, sides()), features(taps(), EVALUATION, sides())
    share = mixing_share(corpus, evaluation, 20)
    pooled = []
    for sketch in (corpus, evaluation):
        values = [torch.linalg.eigvalsh(one.double().T @ one.double() / len(one)) for one in sketch.values()]
        pooled.append(torch.cat(values).sort(descending=True).values[19])
    assert float(share * pooled[1]) == pytest.approx(float((1 - share) * pooled[0]), rel=1e-6)
    assert 0 < share < 1


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5)])
@pytest.mark.parametrize("exponent", [-1.0, -0.5])
def test_power_in_the_span_of_the_rows(shape, exponent):
    """The short way equals the dense one for wide, tall and square roots, one with two equal rows too."""
    generator = torch.Generator().manual_seed(sum(shape))
    root = torch.randn(shape, generator=generator)
    root[1] = root[0]
    rows = torch.randn(3, shape[1], generator=generator)
    expected = rows.double() @ dense_power((root.T @ root).double(), exponent)
    close(Curvature.of(root, DAMPING).power(rows, exponent), expected)


def test_padding_and_labels_agree():
    """Targets stand one position before the labels, and only explained tokens have any."""
    row = TokenRow((5, 6, 7, 8, 9), 2, (True, False, True))
    padded = pad([row, random_row(3, 4)])
    assert padded.targets[0].tolist() == [IGNORED, 7, IGNORED, 9, IGNORED, IGNORED]
    assert labels_of(row) == [IGNORED, IGNORED, 7, IGNORED, 9]
    assert padded.mask[0].tolist() == [1, 1, 1, 1, 0, 0]


def test_rows_of_the_table(tmp_path):
    """Both methods score every pair at both widths, and say what they store."""
    write_micro_model(tmp_path / "audited", micro_config(hidden_size=16, num_hidden_layers=1))
    subject = Subject(
        SmallModel(tmp_path),
        tmp_path,
        (),
        (),
        rows=tuple(ROWS),
        asked=tuple(QUERIES),
        teachers=tuple(EVALUATION),
    )
    found = logra(subject) | trackstar(subject)
    assert set(found) == {"LoGra, rank 16", "LoGra, rank 64", "TrackStar, 16 x 16", "TrackStar, 64 x 64"}
    for name, one in found.items():
        assert one.scores.shape == (len(QUERIES), len(ROWS))
        assert torch.from_numpy(one.scores).isfinite().all()
        assert (abs(one.scores) <= 1.0001).all() == name.startswith("TrackStar")
    assert found["TrackStar, 16 x 16"].bytes_per_example == 4 * sum(
        min(16, len(side.left)) * min(16, side.right.shape[1])
        for side in random_sides(LinearTaps(subject.language()), ROWS[0], 16, 7).values()
    )
