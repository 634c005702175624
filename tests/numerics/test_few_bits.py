"""Numbers of one, two and four bits: packed and back, and what becomes of inner products."""

from pathlib import Path

import numpy as np
import pytest
import torch

from wherefrom.attribution.arrays import QuantisedWriter, coded, decoded


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_codes_are_the_nearest_of_a_grid(bits: int) -> None:
    """Every number comes back as a half step of the grid nearest to it, in an odd number of places too; zeros stay zero."""
    numbers = torch.randn(6, 13, generator=torch.Generator().manual_seed(bits))
    numbers[4] = 0.0
    packed, scales = coded(numbers, bits)
    assert packed.dtype == torch.uint8
    assert packed.shape == (6, -(-13 * bits // 8))
    assert scales.dtype == torch.float16
    back = decoded(packed, scales, bits=bits, numbers=13)
    assert not back[4].any()
    assert torch.equal(back.sign()[:4], numbers.sign()[:4])
    levels = [len(set(row.tolist())) for row in back[:4]]
    assert max(levels) <= 1 << bits
    ordered = numbers[0].argsort()
    assert bool((back[0][ordered].diff() >= 0).all())


@pytest.mark.parametrize(("bits", "error"), [(1, 0.025), (2, 0.012), (4, 0.004)])
def test_inner_products_are_right_on_average(bits: int, error: float) -> None:
    """With itself exactly, with others but for noise that falls with the bits."""
    generator = torch.Generator().manual_seed(0)
    numbers, others = torch.randn(50, 4096, generator=generator), torch.randn(200, 4096, generator=generator)
    back = decoded(*coded(numbers, bits), bits=bits, numbers=4096)
    own = (back * numbers).sum(dim=1) / numbers.square().sum(dim=1)
    torch.testing.assert_close(own, torch.ones(50), rtol=2e-3, atol=2e-3)
    far = (others @ back.T - others @ numbers.T) / 4096
    assert abs(float(far.mean())) < error / 20
    assert float(far.std()) < error


def test_written_in_parts(tmp_path: Path) -> None:
    """As at once."""
    numbers = torch.randn(5, 3, 10, generator=torch.Generator().manual_seed(4))
    with QuantisedWriter(tmp_path / "a.npy", tmp_path / "s.npy", count=5, bits=4) as written:
        for part in numbers.split(2):
            written.append(part)
    packed, scales = coded(numbers, 4)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), packed.numpy())
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), scales.numpy())
