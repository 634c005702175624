"""What is told to a webhook: the notices on their way, and what was told of each subject so far."""

from datetime import datetime

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import Base, Id, Now, Short, stored_enum
from wherefrom.records import DeliveryState
from wherefrom.records.bounds import MAX_SOURCE


class WebhookDelivery(Base):
    """One notice. Its body is kept as it is sent, so that every try has the same bytes."""

    __tablename__ = "webhook_delivery"
    __table_args__ = (Index(None, "state", "next_attempt_at"),)

    id: Mapped[Id]
    #: Receivers know a repeated try by it.
    event_id: Mapped[Short] = mapped_column(unique=True)
    kind: Mapped[Short]
    subject: Mapped[str] = mapped_column(String(MAX_SOURCE))
    body: Mapped[str]
    state: Mapped[DeliveryState] = mapped_column(stored_enum(DeliveryState, "webhook_delivery_state"))
    attempt: Mapped[int] = mapped_column(default=0)
    #: Also the end of a try that is under way: whoever died in it leaves the notice to the next one.
    next_attempt_at: Mapped[datetime | None]
    code: Mapped[Short | None]
    reason: Mapped[str | None]
    created_at: Mapped[Now]
    finished_at: Mapped[datetime | None]


class Alert(Base):
    """What was told of one subject, so that it is not told again with every look."""

    __tablename__ = "alert"
    __table_args__ = (UniqueConstraint("kind", "subject"),)

    id: Mapped[Id]
    kind: Mapped[Short]
    subject: Mapped[str] = mapped_column(String(MAX_SOURCE))
    #: It was told, and has not fallen since.
    raised: Mapped[bool] = mapped_column(default=False)
    #: Its value when it was told last, and when that was; NULL where it never was.
    told_value: Mapped[int | None]
    told_at: Mapped[datetime | None]
