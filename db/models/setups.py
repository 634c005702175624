"""What audits were computed with."""

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import Base, Id, Now, Sha256


class EngineSetup(Base):
    """Versions, numbers and settings that one or many audits were computed with; few rows, for processes of one release share one."""

    __tablename__ = "engine_setup"

    id: Mapped[Id]
    #: Of the content as canonical JSON.
    sha256: Mapped[Sha256] = mapped_column(unique=True)
    content: Mapped[dict[str, Any]]
    first_seen_at: Mapped[Now]
