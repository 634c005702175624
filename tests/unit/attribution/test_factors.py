"""Factors on disk: quantised, appended, gathered in any order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.attribution.factors import Factors, FactorStore, FactorWriter, PackedFactors, pack
from wherefrom.errors import BundleCorrupt


def factors(lengths: tuple[int, ...], seed: int = 0) -> Factors:
    """Random factors of two groups."""
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    return Factors(
        torch.randn(tokens, 2, 5, generator=generator),
        100 * torch.randn(tokens, 2, 3, generator=generator),
        lengths,
    )


def same(one: PackedFactors, other: PackedFactors) -> bool:
    """Bit for bit."""
    return one.lengths == other.lengths and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in ("a", "a_scale", "b", "b_scale")
    )


@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_quantisation_error(seed: int, size: float) -> None:
    """No value is off by more than half a step of its token's scale; zeros stay zero."""
    one = factors((3, 4), seed)
    scaled = Factors(one.a * size, torch.zeros_like(one.b), one.lengths)
    packed = pack(scaled)
    back = packed.unpack()
    assert bool(((back.a - scaled.a).abs() <= packed.a_scale[..., None] * 0.501).all())
    assert not back.b.any()


def test_written_and_read(tmp_path: Path) -> None:
    """Parts appended one after the other come back by range and in any order; no part file is left."""
    lengths = (2, 1, 4, 3, 1)
    whole = factors(lengths)
    packed = pack(whole)
    with FactorWriter(tmp_path) as writer:
        writer.append(pack(Factors(whole.a[:3], whole.b[:3], lengths[:2])), [1.0, 2.0])
        writer.append(pack(Factors(whole.a[3:], whole.b[3:], lengths[2:])), [3.0, 4.0, 5.0])
        writer.finish()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a.npy",
        "a_scale.npy",
        "b.npy",
        "b_scale.npy",
        "norms.npy",
        "offsets.npy",
    ]
    store = FactorStore(tmp_path)
    assert len(store) == 5
    assert store.norms.tolist() == [1, 2, 3, 4, 5]
    assert same(store.range(0, 5), packed)
    assert same(store.gather(np.array([1, 2])), store.range(1, 3))
    mixed = store.gather(np.array([4, 0, 2]))
    assert mixed.lengths == (1, 2, 4)
    assert torch.equal(mixed.a, torch.cat([packed.a[10:], packed.a[:2], packed.a[3:7]]))


def test_missing_factors(tmp_path: Path) -> None:
    """A folder without factors is a corrupt bundle."""
    with pytest.raises(BundleCorrupt, match="the factors cannot be opened"):
        FactorStore(tmp_path)
