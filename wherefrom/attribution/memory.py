"""Memory that runs out, on the CPU or on a GPU, as the one error that the queue knows: smaller batches are tried then.

A failed pass must let go of its tensors before the next one begins, or that one fails too: an error holds the frames that it went through, and they hold the
tensors. So the frames are cleared, and on a GPU torch gives back what it keeps for later use.
"""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from wherefrom.errors import OutOfMemory

#: What a container may use, where there is a limit.
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


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


def machine_bytes() -> int:
    """Memory of this machine, or what the container may use of it."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _CONTAINER_LIMIT.read_text(encoding="ascii").strip()
    except OSError:
        return installed
    return min(installed, int(limit)) if limit.isdigit() else installed


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
