"""Nothing is made on the CPU that meets the GPU: the engine's own tensors follow their inputs' device.

Checked on a device without numbers (`tests.fake_gpu`), so it needs no GPU; what only a GPU can show runs with `--device cuda`.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    """What each check said, or how it failed."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fake_gpu"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    read: dict[str, list[str]] = json.loads(ended.stdout)
    return read


def test_signals_come_from_the_gpu_in_float32(found):
    """Of every form, by the split and the plain pass, whatever the model's numbers are."""
    signals = {name: values for name, values in found.items() if name.startswith("signals")}
    assert len(signals) == 16
    assert {one for values in signals.values() for one in values} == {"fakegpu float32"}, signals


@pytest.mark.parametrize("name", ["whiten", "kernels", "projections", "curvature"])
def test_what_is_computed_behind_the_model_stays_there(found, name):
    """Whitening, kernel, projection and EK-FAC, also from factors that were read from the disk."""
    assert set(found[name]) == {"fakegpu float32"}
