"""The engine's small models and bundles, and the device of this run."""

import pytest
import torch

from tests.tiny import micro_bundle, micro_model_dir, tiny_bundle, tiny_model_dir

__all__ = ["micro_bundle", "micro_model_dir", "tiny_bundle", "tiny_model_dir"]


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """What `--device` says: the CPU, or the first GPU."""
    asked = torch.device(request.config.getoption("--device"))
    return torch.device("cuda", asked.index or 0) if asked.type == "cuda" else asked
