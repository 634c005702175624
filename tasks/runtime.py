"""What every task has in common: the process that it runs in, and the hint that called it."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from tasks.attribute import Clock
from wherefrom.logs import get_logger
from wherefrom.metrics import Metrics
from wherefrom.records import Frozen
from wherefrom.settings import Settings

log = get_logger(__name__)

AnyHint = TypeVar("AnyHint", bound=Frozen)


class TaskRuntime(Protocol):
    """What one worker process holds for its tasks."""

    @property
    def settings(self) -> Settings:
        """Settings of the process."""

    @property
    def metrics(self) -> Metrics:
        """Metrics of the process."""

    @property
    def owner(self) -> str:
        """Name under which this process claims."""

    @property
    def clock(self) -> Clock:
        """Seconds for durations."""

    def is_ending(self) -> bool:
        """Whether the worker was told to end, so that nothing new is begun."""

    def send_hint(self, bundle_id: int) -> None:
        """Put one more hint on the queue; the queue being away is no error (the sweeper sends it again)."""


def hint_of(message: Mapping[str, Any], kind: type[AnyHint]) -> AnyHint | None:
    """The hint that a message is; None where it is none, which is logged. A hint may be forged, so nothing trusts it."""
    try:
        return kind.model_validate(message)
    except ValidationError as error:
        log.warning("hint_refused", errors=error.error_count())
        return None
