"""Whitening: the whitened second moments are what the formula says, and joining layers changes no sum."""

import numpy as np
import torch

from tests.numerics.tolerances import FLOAT32, FLOAT64
from wherefrom.attribution.whitening import SecondMoments, Whitener

DAMPING = 0.1


def random_signals(count: int, layers: int, width: int, *, seed: int) -> torch.Tensor:
    """Correlated signals `[S, L, D]`, one direction of which never varies."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, layers, width, generator=generator) @ torch.randn(
        width, width, generator=generator
    )
    values[..., 0] = 0.0
    return values


def moments_of(a: torch.Tensor, b: torch.Tensor) -> SecondMoments:
    """Second moments of all positions at once."""
    moments = SecondMoments.zeros(a.shape[1], b.shape[1], a.shape[2])
    moments.add(a, b)
    return moments


def test_whitened_moments() -> None:
    """C of the whitened signals is (C + g I)^-1/2 C (C + g I)^-1/2, layer by layer."""
    a, b = random_signals(200, 3, 6, seed=1), random_signals(200, 3, 6, seed=2)
    white_a, white_b = Whitener.fit(moments_of(a, b), DAMPING).apply(a, b)
    for raw, white in ((a, white_a), (b, white_b)):
        for layer in range(raw.shape[1]):
            before = (raw[:, layer].T @ raw[:, layer]).double().numpy() / len(raw)
            values, vectors = np.linalg.eigh(before)
            damped = values + DAMPING * np.trace(before) / len(before)
            expected = (vectors * (values / damped)) @ vectors.T
            after = (white[:, layer].T @ white[:, layer]).numpy() / len(raw)
            np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-4)


def test_joint_group_is_the_sum_over_layers() -> None:
    """With one error signal the concatenated layers give the sum over the layers' kernels."""
    a, b = random_signals(20, 3, 6, seed=3), random_signals(20, 1, 6, seed=4)
    whitener = Whitener.fit(moments_of(a, b), DAMPING)
    layers = torch.einsum("sld,lde->sle", a, whitener.a)
    joined, error = whitener.apply(a, b)
    assert joined.shape == (20, 1, 18)
    by_layer = sum(layers[:, layer] @ layers[:, layer].T for layer in range(3)) * (
        error[:, 0] @ error[:, 0].T
    )
    joint = (joined[:, 0] @ joined[:, 0].T) * (error[:, 0] @ error[:, 0].T)
    torch.testing.assert_close(joint, by_layer, rtol=1e-3, atol=1e-3)


def test_moments_merge() -> None:
    """Shards add up to the corpus."""
    a, b = random_signals(30, 2, 5, seed=5), random_signals(30, 1, 5, seed=6)
    merged = moments_of(a[:11], b[:11])
    merged.merge(moments_of(a[11:], b[11:]))
    whole = moments_of(a, b)
    assert merged.count == whole.count == 30
    np.testing.assert_allclose(merged.a, whole.a, **FLOAT64)
    np.testing.assert_allclose(merged.b, whole.b, **FLOAT64)


def test_signals_without_variation() -> None:
    """A layer whose error signal is all zero stays zero, without infinities."""
    a, b = random_signals(10, 1, 4, seed=7), torch.zeros(10, 1, 4)
    _, white = Whitener.fit(moments_of(a, b)).apply(a, b)
    torch.testing.assert_close(white, torch.zeros(10, 1, 4), **FLOAT32)


def test_filled_up_directions_do_not_change_the_damping() -> None:
    """A layer of two directions that stands in four is whitened as by itself; the zeros stay zero."""
    values = torch.randn(50, 1, 2, generator=torch.Generator().manual_seed(3))
    filled = torch.nn.functional.pad(values, (0, 2))
    found = []
    for one in (values, filled):
        moments = SecondMoments.zeros(1, 1, one.shape[2])
        moments.add(one, one)
        found.append(Whitener.fit(moments, 0.5, ranks=[2]).apply(one, one)[0])
    torch.testing.assert_close(found[1][:, :, :2], found[0], rtol=1e-6, atol=1e-6)
    assert not found[1][:, :, 2:].any()
