"""`wherefrom.evaluation.sanity`: shuffled weights come back, and cardinality counts what is cited twice."""

import numpy as np
import pytest
import torch

from wherefrom.evaluation.sanity import cardinality, shuffled


def _look_and_stop(tensors: list[torch.Tensor], before: list[torch.Tensor]) -> None:
    with shuffled(tensors, seed=3):
        for one, was in zip(tensors, before, strict=True):
            assert not torch.equal(one, was)
            assert torch.equal(one.flatten().sort().values, was.flatten().sort().values)
        raise RuntimeError("stopped")


def test_shuffled_tensors_come_back() -> None:
    """Values are in another order inside and as before outside, also after an error."""
    tensors = [torch.arange(120.0).reshape(10, 12), torch.arange(50.0).reshape(5, 10).T]
    before = [one.clone() for one in tensors]
    with pytest.raises(RuntimeError, match="stopped"):
        _look_and_stop(tensors, before)
    for one, was in zip(tensors, before, strict=True):
        assert torch.equal(one, was)


def test_cardinality() -> None:
    """Two outputs that share five of ten citations cite fifteen different examples."""
    scores = np.zeros((2, 40), dtype=np.float32)
    scores[0, :10] = 1.0
    scores[1, 5:15] = 1.0
    found = cardinality(scores, made_of="outputs")
    assert found["different examples among the ten first of all outputs"].value == pytest.approx(15 / 20)
    assert found["outputs that cite the most cited example"].value == 1.0
