"""Signs of life of the service's processes, on whichever machine they run."""

from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import Base, Now, Short


class ProcessSign(Base):
    """One process that works: it writes its row again every few seconds, and takes it away when it ends in order."""

    __tablename__ = "process_sign"

    #: The name under which it holds leases: machine, process, and a random part.
    name: Mapped[Short] = mapped_column(primary_key=True)
    #: What it does: `attribute`, `measure`, `build`, `sweep` or `intake`.
    role: Mapped[str] = mapped_column(String(20))
    host: Mapped[Short]
    pid: Mapped[int]
    #: Ids of the bundles that it has loaded.
    bundles: Mapped[list[Any]]
    started_at: Mapped[Now]
    seen_at: Mapped[Now]
