"""Which device each process of a worker computes on, and what doctor says of it."""

import os
from types import SimpleNamespace

import pytest
import torch

from wherefrom.errors import ConfigurationError
from wherefrom.settings import Settings, load_settings
from worker.checkup import doctor
from worker.pool import placing
from worker.pool.placing import MEASURER, WORKER, place_process, placed_processes


@pytest.fixture
def two_gpus(monkeypatch):
    """A machine with two GPUs that compute with bfloat16."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU number {device.index}")


def at_place(monkeypatch, number):
    """This process is process `number` of its pool."""
    monkeypatch.setattr(placing, "current_process", lambda: SimpleNamespace(index=number))


def said(settings):
    """What doctor says of devices."""
    return [(one.what, one.verdict, one.text) for one in doctor._devices(settings)]


def test_each_process_takes_a_gpu_and_the_measurer_the_next(monkeypatch, tmp_path, two_gpus):
    """In turn; doctor names each one with its GPU and its numbers."""
    settings = Settings(state_dir=tmp_path, worker_processes=3)
    for number in range(3):
        at_place(monkeypatch, number)
        place_process(settings, WORKER)
    at_place(monkeypatch, 0)
    assert place_process(settings, MEASURER).dtype is torch.float32
    assert said(settings) == [
        ("worker process 0", "ok", "cuda:0 (GPU number 0), bfloat16"),
        ("worker process 1", "ok", "cuda:1 (GPU number 1), bfloat16"),
        ("worker process 2", "ok", "cuda:0 (GPU number 0), bfloat16"),
        ("measurer process 0", "ok", "cuda:1 (GPU number 1), float32"),
    ]


def test_a_process_that_is_gone_is_not_named(tmp_path):
    """Its file may stay behind."""
    settings = Settings(state_dir=tmp_path, device="cpu")
    place_process(settings, WORKER)
    assert [one.text for one in placed_processes(settings)] == ["cpu, float32"]
    file = tmp_path / "device-worker-0.json"
    file.write_text(file.read_text("utf-8").replace(str(os.getpid()), "999999999"), encoding="utf-8")
    assert said(settings) == []


def test_doctor_says_that_the_gpu_is_not_here(tmp_path):
    """A warning: workers may run on other machines."""
    ((what, verdict, text),) = said(Settings(state_dir=tmp_path, device="cuda"))
    assert (what, verdict) == ("device", "warning")
    assert "no GPU that torch can use" in text
    assert "would refuse every bundle" in text


def test_doctor_says_what_will_be_used(tmp_path, two_gpus):
    """Where the device is named and no process has come so far."""
    settings = Settings(state_dir=tmp_path, device="cuda:1", dtype="float32")
    assert said(settings) == [("device", "ok", "cuda:1, float32; no process has loaded a model yet")]


def test_a_process_without_its_gpu_says_so(tmp_path):
    """A permanent error, which refuses the bundle with these words."""
    with pytest.raises(ConfigurationError, match="device cuda:0: this machine has no GPU"):
        place_process(Settings(state_dir=tmp_path, device="cuda:0"), WORKER)


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:-1", "cuda:01", "mps", ""])
def test_a_setting_that_is_no_device_is_refused_at_the_start(monkeypatch, value):
    """The error names the variable."""
    monkeypatch.setenv("WHEREFROM_DEVICE", value)
    with pytest.raises(ConfigurationError, match=r"WHEREFROM_DEVICE: .*use auto, cpu, cuda or cuda:N"):
        load_settings()


def test_outside_of_a_pool_a_process_is_the_first():
    """A command line, or a test."""
    assert placing.pool_number() == 0
