"""The Celery task around `tasks.hint.work_hint`: it hands the message and the process's runtime over, nothing else."""

from typing import Any

from celery import Task

from tasks.hint import BatchRuntime, work_hint
from wherefrom.messages import ATTRIBUTE_TASK


class AttributeTask(Task):  # type: ignore[misc]  # Celery ships no types
    """There may be work for a bundle. Acknowledged early, without result: the audit rows are the truth."""

    name = ATTRIBUTE_TASK
    #: Set when a pool process starts (`worker.app`).
    runtime: BatchRuntime | None = None

    def run(self, *_: Any, **message: Any) -> None:
        """Work off one hint; positional arguments, which we never send, are ignored."""
        if self.runtime is None:
            raise RuntimeError("this process has no runtime; tasks run in the pool of `python -m worker run`")
        work_hint(message, self.runtime)
