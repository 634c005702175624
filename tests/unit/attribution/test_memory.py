"""Memory that runs out: one error for every kind, and nothing of the failed pass is held while the next one runs."""

import weakref

import pytest
import torch

from tests.tiny import opened, random_row, tiny_queries, write_jsonl
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.shards import read_rows
from wherefrom.attribution.memory import memory_errors
from wherefrom.attribution.offline import read_queries
from wherefrom.errors import OutOfMemory

CUDA = torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"
)


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (CUDA, "the GPU's memory"),
        (MemoryError(), "memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: not enough memory"),
            "memory",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "memory",
        ),
        (RuntimeError("cuDNN error: out of memory"), "memory"),
    ],
)
def test_every_kind_is_the_one_transient_error(error, where):
    """Whatever library says it, and in whatever words."""
    said = f"a batch of 3 queries did not fit into {where}"
    with pytest.raises(OutOfMemory, match=said), memory_errors("a batch of 3 queries"):
        raise error


def test_other_errors_pass():
    """A bug is no lack of memory."""
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("a batch"):
        raise RuntimeError("shapes do not fit")


def test_the_failed_pass_is_let_go_while_its_error_is_held():
    """A smaller batch is tried while the error is still in hand; tensors of the failed pass would leave it no room."""
    kept = []

    def layer():
        big = torch.zeros(1000)
        kept.append(weakref.ref(big))
        raise CUDA

    def model():
        state = torch.zeros(1000)
        kept.append(weakref.ref(state))
        layer()

    with pytest.raises(OutOfMemory) as caught, memory_errors("a batch"):
        model()
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert [one() for one in kept] == [None, None]


def test_a_batch_of_a_build_that_does_not_fit_is_split():
    """Down to rows that fit alone, in any order of sizes; the signals are those of one batch."""
    bundle = opened()
    rows = [random_row(4 + number, 3, seed=number) for number in range(7)]
    whole = read_rows(rows, bundle.reader)
    seen = []

    class Small:
        split_pass = True
        device = torch.device("cpu")
        reads = bundle.reader.reads

        def read(self, batch):
            seen.append(len(batch))
            if len(batch) > 2:
                raise CUDA
            return bundle.reader.read(batch)

    parts = read_rows(rows, Small())
    assert max(seen) == 7
    assert parts.lengths == whole.lengths
    torch.testing.assert_close(parts.b, whole.b)


def test_a_row_that_does_not_fit_alone_ends_the_build():
    """As a transient error: the same command may work on a larger machine."""

    class Full:
        split_pass = True
        device = torch.device("cpu")
        reads = opened().reader.reads

        def read(self, _batch):
            raise CUDA

    with pytest.raises(OutOfMemory, match="a batch of 1 training examples did not fit into the GPU's memory"):
        read_rows([random_row(4, 3)], Full())


@pytest.mark.parametrize("stage", ["reader", "whitener", "store"])
def test_the_engine_says_so_wherever_it_happens(monkeypatch, tmp_path, stage):
    """In the model's pass, behind it, or when candidates are scored."""
    bundle = opened()
    attributor = LanguageAttributor(bundle)
    queries, _ = read_queries(write_jsonl(tmp_path / "q.jsonl", tiny_queries(2)))
    prepared = [attributor.prepare(one, max_tokens=128, over_long="truncate") for one in queries]

    def full(*_args, **_more):
        raise CUDA

    method = {"reader": "read", "whitener": "apply", "store": "scores"}[stage]
    monkeypatch.setattr(type(getattr(bundle, stage)), method, full)
    with pytest.raises(OutOfMemory, match="a batch of 2 queries did not fit into the GPU's memory"):
        attributor.attribute(prepared, top_k=3, opponents=1)
