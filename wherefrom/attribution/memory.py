"""Memory that runs out, on the CPU or on a GPU, as the one error that the queue knows: smaller batches are tried then.

A failed pass must let go of its tensors before the next one begins, or that one fails too: an error holds the frames that it went through, and they hold the
tensors. So the frames are cleared, and on a GPU torch gives back what it keeps for later use.
"""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from wherefrom.errors import OutOfMemory


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Turn a failed allocation within the block into `OutOfMemory`; the locals of the functions that it called are lost.

    Args:
        what: What did not fit, as the subject of a sentence.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        give_back()
        where = "the GPU's memory" if isinstance(error, torch.OutOfMemoryError) else "memory"
        raise OutOfMemory(f"{what} did not fit into {where}") from error


def give_back() -> None:
    """Return memory that torch keeps on a GPU for later use; nothing where no GPU is in use."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _is_memory(error: Exception) -> bool:
    """Torch reports a failed allocation on the CPU, and of a library on the GPU, as a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return "memory" in said or "cublas_status_alloc_failed" in said
