"""The Celery tasks: each hands its message and the process's runtime to a plain function, nothing else."""

from typing import Any

from celery import Task

from tasks.build_part import BuildRuntime, work_build_hint
from tasks.hint import BatchRuntime, work_hint
from tasks.measure import MeasureRuntime, work_measure_hint
from wherefrom.messages import ATTRIBUTE_TASK, BUILD_TASK, MEASURE_TASK


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


class MeasureTask(Task):  # type: ignore[misc]  # Celery ships no types
    """There may be an effect to measure with a bundle. Its queue is its own; it is run by `python -m worker measure` only."""

    name = MEASURE_TASK
    #: Set when a measuring pool process starts (`worker.app`).
    runtime: MeasureRuntime | None = None

    def run(self, *_: Any, **message: Any) -> None:
        """Work off one hint."""
        if self.runtime is None:
            raise RuntimeError(
                "this process does not measure; tasks run in the pool of `python -m worker measure`"
            )
        work_measure_hint(message, self.runtime)


class BuildTask(Task):  # type: ignore[misc]  # Celery ships no types
    """There may be a part of a build to be read. Its queue is its own; it is run by `python -m worker build-worker` only."""

    name = BUILD_TASK
    #: Set when a building pool process starts (`worker.app`).
    runtime: BuildRuntime | None = None

    def run(self, *_: Any, **message: Any) -> None:
        """Work off one hint."""
        if self.runtime is None:
            raise RuntimeError(
                "this process does not build; tasks run in the pool of `python -m worker build-worker`"
            )
        work_build_hint(message, self.runtime)
