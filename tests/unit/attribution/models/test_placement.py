"""Where a model computes: what is asked for, what this machine has, and what is said where the two differ."""

import pytest
import torch
from accelerate import dispatch_model

from tests.tiny import micro_language, random_row, shared_micro_model
from wherefrom.attribution.models import placement
from wherefrom.attribution.models.model import load_model
from wherefrom.attribution.models.placement import CPU, Placement, is_spread, spread
from wherefrom.attribution.models.signals import SignalReader
from wherefrom.errors import ConfigurationError, OutOfMemory

ROWS = [random_row(5, 4), random_row(9, 3, seed=2)]


@pytest.fixture
def gpus(monkeypatch):
    """A machine with as many GPUs as are asked for, with or without bfloat16."""

    def have(count, *, bfloat16=True, free_bytes=1 << 40):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bfloat16)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes, free_bytes))

    return have


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (0, ("auto", "auto"), "cpu, float32"),
        (0, ("cpu", "bfloat16"), "cpu, bfloat16"),
        (2, ("auto", "auto"), "cuda:0, bfloat16"),
        (2, ("cpu", "auto"), "cpu, float32"),
        (2, ("cuda", "float32"), "cuda:0, float32"),
        (2, ("cuda:1", "auto"), "cuda:1, bfloat16"),
    ],
)
def test_what_is_asked_for_is_found(gpus, count, asked, said):
    """`auto` takes a GPU where there is one, and bfloat16 on it."""
    gpus(count)
    assert str(Placement.resolve(*asked)) == said


def test_auto_knows_a_gpu_without_bfloat16(gpus):
    """float32 there, and asking for bfloat16 is refused by name."""
    gpus(1, bfloat16=False)
    assert Placement.resolve().dtype is torch.float32
    with pytest.raises(ConfigurationError, match="cuda:0 does not compute with it; use float32"):
        Placement.resolve("cuda", "bfloat16")


def test_training_is_float32_unless_asked_otherwise(gpus):
    """Rounding is as large as the effects that a retraining measures."""
    gpus(1)
    assert Placement.resolve(training=True).dtype is torch.float32
    assert Placement.resolve(dtype="bfloat16", training=True).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("count", "asked", "said"),
    [
        (0, ("cuda", "auto"), "device cuda: this machine has no GPU that torch can use"),
        (0, ("cuda:0", "auto"), "device cuda:0: this machine has no GPU"),
        (1, ("cuda:1", "auto"), "device cuda:1: this machine has only cuda:0"),
        (2, ("cuda:7", "auto"), "device cuda:7: this machine has cuda:0 to cuda:1"),
        (2, ("gpu", "auto"), "device 'gpu': use auto, cpu, cuda or cuda:N"),
        (2, ("cuda:", "auto"), "device 'cuda:': use"),
        (2, ("cuda:-1", "auto"), "device 'cuda:-1': use"),
        (2, ("cuda:01", "auto"), "device 'cuda:01': use"),
        (2, ("", "auto"), "device '': use"),
        (2, ("cpu", "float16"), "dtype 'float16': use auto, float32 or bfloat16"),
    ],
)
def test_what_is_not_there_is_said(gpus, count, asked, said):
    """What was asked, and what there is."""
    gpus(count)
    with pytest.raises(ConfigurationError, match=f"^{said}"):
        Placement.resolve(*asked)


def test_processes_take_the_gpus_in_turn(gpus):
    """Where the GPU was left open; one that was named is every process' own choice, and one process alone may take all."""
    gpus(2)
    devices = [str(Placement.resolve("auto").for_process(number, 5).device) for number in range(5)]
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]
    assert not Placement.resolve("cuda").for_process(1, 2).any_gpu
    assert Placement.resolve("cuda").for_process(0, 1).any_gpu
    assert str(Placement.resolve("cuda:1").for_process(0, 5).device) == "cuda:1"
    assert Placement.resolve("cpu").for_process(3, 5) == CPU


def test_bfloat16_weights_keep_the_angles_of_positions():
    """Buffers stay float32: rounded angles would move every position."""
    language = load_model(shared_micro_model(), placement=Placement(torch.device("cpu"), torch.bfloat16))
    assert {one.dtype for one in language.model.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in language.model.buffers()} == {torch.float32}
    assert (language.dtype, language.device) == (torch.bfloat16, torch.device("cpu"))


def test_a_model_too_large_for_one_gpu_is_spread(gpus, monkeypatch):
    """Over all of them, in order, with room left; a named GPU is taken at its word."""
    gpus(2, free_bytes=1000)
    seen = []
    monkeypatch.setattr(placement, "spread", lambda _, room: seen.append(room))
    Placement.resolve("cuda", "float32").put(micro_language().model)
    assert seen == [{0: 800, 1: 800}]
    with pytest.raises((RuntimeError, AssertionError)):  # this torch has no CUDA: it went the plain way
        Placement.resolve("cuda:0", "float32").put(micro_language().model)
    assert len(seen) == 1


def test_a_model_too_large_for_all_gpus_is_refused():
    """It is not half on the CPU without a word."""
    with pytest.raises(ConfigurationError, match="does not fit on the 2 GPUs together"):
        spread(micro_language().model, {0: 1000, 1: 1000})


def test_spreading_needs_accelerate(monkeypatch):
    """And the error says how to get it."""
    monkeypatch.setattr(placement, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="pip install accelerate"):
        spread(micro_language().model, {0: 1 << 40})


@pytest.mark.parametrize("form", ["forward", "activation"])
def test_a_model_with_hooks_of_accelerate_is_read_the_same(form):
    """What carries states from device to device does not stand in the reader's way."""
    hooked = load_model(shared_micro_model())
    parts = ("embed_tokens", "rotary_emb", "norm", *(f"layers.{number}" for number in range(3)))
    layout = {f"model.{name}": "cpu" for name in parts} | {"lm_head": "cpu"}
    dispatch_model(hooked.model, device_map=layout, force_hooks=True)
    read = [
        SignalReader(one, form=form, layers=(1, 3), similarity_layer=2).read(ROWS)
        for one in (hooked, micro_language())
    ]
    assert torch.equal(read[0].b, read[1].b)
    assert torch.equal(read[0].loss, read[1].loss)


def test_a_spread_model_is_known():
    """By the devices of its weights."""
    assert not is_spread(micro_language().model)
    with torch.device("meta"):
        both = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2, device="cpu"))
    assert is_spread(both)


def test_a_model_that_does_not_fit_is_a_transient_error(monkeypatch):
    """Another process may end; so the bundle is opened again later, not refused."""

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Placement, "put", full)
    with pytest.raises(OutOfMemory, match=r"the model .* did not fit into the GPU's memory"):
        load_model(shared_micro_model())


def test_micro_models_need_no_second_gpu(gpus, monkeypatch):
    """A model that fits stays whole."""
    gpus(2)
    monkeypatch.setattr(placement, "spread", lambda *_: pytest.fail("spread"))
    model = torch.nn.Linear(2, 2)
    monkeypatch.setattr(model, "to", lambda device: device)
    assert Placement.resolve("cuda").put(model) == torch.device("cuda", 0)
