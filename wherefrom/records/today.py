"""What happens now: how the work goes, who does it, what is stuck and why, and what is new."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.audits import AuditState, QueueHealth
from wherefrom.records.bounds import Items
from wherefrom.records.flagged import Frozen
from wherefrom.records.measurements import MeasurementState

#: Minutes that the throughput covers, and the last ones over which rates are taken.
MINUTES, RATE_MINUTES = 60, 10


class Minute(Frozen):
    """Audits that ended in one minute."""

    start: datetime
    done: int = 0
    abstained: int = 0
    rejected: int = 0
    dead: int = 0

    @property
    def ended(self) -> int:
        """All of them."""
        return self.done + self.abstained + self.rejected + self.dead


class WorkerSign(Frozen):
    """One process of the service, as it showed itself last."""

    name: str
    role: str = Field(description="`attribute`, `measure`, `sweep` or `intake`.")
    host: str
    pid: int
    bundles: Items[str] = Field(description="Bundles that it has loaded.")
    models: Items[str] = Field(description="The models that these explain.")
    started_at: datetime
    seen_at: datetime
    alive: bool = Field(description="It gave a sign of life in the last minute.")


class Stuck(Frozen):
    """Audits that stand in one state for one reason."""

    state: AuditState
    code: str | None
    audits: int
    more: bool = Field(description="Only the newest 5,000 of the state were looked at, and there are more.")
    retry: bool = Field(description="They can be tried again.")
    meaning: str = Field(default="", description="What the code means.")
    advice: str = Field(default="", description="What to do.")


class StuckKind(StrEnum):
    """Work that is no audit."""

    MEASUREMENT = "measurement"
    GROUP_MEASUREMENT = "group_measurement"
    WHAT_IF = "what_if"
    COMPARISON = "comparison"
    NOTICE = "notice"


class StuckWork(Frozen):
    """Work of one kind that died of one reason, or has waited for its process for 15 minutes."""

    kind: StuckKind
    state: MeasurementState = Field(description="`dead`, or `pending` for what waits.")
    code: str | None
    number: int
    more: bool = Field(description="Only the newest 5,000 were looked at, and there are more.")
    leads_to: int | None = Field(description="Number of an audit, or of a what-if, that is one of them.")
    meaning: str = Field(default="", description="What the code means.")
    advice: str = Field(default="", description="What to do.")


class Alert(Frozen):
    """Something that keeps the work from going on."""

    text: str
    advice: str


class News(Frozen):
    """What is new since somebody's last visit to the list of audits; counted up to 10,000."""

    since: datetime
    received: int
    answered: int
    findings: int


class Waiting(Frozen):
    """Audits that could be worked on now under one bundle, counted up to 10,000."""

    bundle: str
    model: str
    audits: int
    workers: int = Field(description="Living processes that have loaded it.")


class Today(Frozen):
    """How the work goes, now."""

    now: datetime
    queue: QueueHealth
    minutes: Annotated[tuple[Minute, ...], Field(max_length=MINUTES + 1)] = Field(
        description="Audits that ended in each of the last 60 minutes, oldest first; the last minute is not over."
    )
    partial: bool = Field(
        description="More audits ended than were looked at; the earliest minutes lack some."
    )
    workers: Items[WorkerSign]
    waiting: Items[Waiting]
    stuck: Items[Stuck]
    stuck_work: Items[StuckWork] = Field(default=(), description="What else is stuck.")
    alerts: Items[Alert] = ()
    news: News | None = Field(default=None, description="None for whoever has no earlier visit.")

    def per_minute(self, *states: str) -> float:
        """Audits that ended so in a minute, over the last whole ten minutes."""
        last = self.minutes[-1 - RATE_MINUTES : -1]
        ended: int = sum(getattr(one, state) for one in last for state in states)
        return ended / RATE_MINUTES

    @property
    def abstained_share(self) -> float | None:
        """Share of the answered audits of the hour that abstained; None where none was answered."""
        abstained = sum(one.abstained for one in self.minutes)
        answered = abstained + sum(one.done for one in self.minutes)
        return abstained / answered if answered else None
