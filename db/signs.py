"""Which processes of the service are alive: each writes a row every few seconds, so that the page knows of those on other machines too."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, func, select, update

from db.clock import db_after, db_now
from db.models import ProcessSign
from db.session import Database
from db.statements import insert_new

#: What processes do, as their signs say it. The web process gives none: it is scraped.
ROLES = ("attribute", "measure", "build", "intake", "sweep")
#: Seconds between two signs of a process.
EVERY_S = 15.0
#: Without a sign for so long, a process counts as silent; after so long, nobody hears of it again.
SILENT_S, FORGOTTEN_S = 60.0, 600.0


@dataclass(frozen=True)
class Sign:
    """What a process says of itself."""

    #: The name under which it holds leases.
    name: str
    role: str
    host: str
    pid: int
    #: Ids of the bundles that it has loaded.
    bundles: Sequence[int] = ()


def give_sign(db: Database, sign: Sign) -> None:
    """Write that a process is alive, and forget those that were silent for long.

    Raises:
        DatabaseUnavailable: nothing was written.
    """
    changing = {"bundles": list(sign.bundles), "seen_at": db_now()}
    mine = update(ProcessSign).where(ProcessSign.name == sign.name)
    with db.writing() as session:
        if session.scalar(mine.values(**changing).returning(ProcessSign.name)) is not None:
            return
        new = {"name": sign.name, "role": sign.role, "host": sign.host[:200], "pid": sign.pid}
        session.execute(
            insert_new(session, ProcessSign, (ProcessSign.name,)), [new | {"bundles": list(sign.bundles)}]
        )
        session.execute(delete(ProcessSign).where(ProcessSign.seen_at < db_after(-FORGOTTEN_S)))


def alive(db: Database) -> dict[str, int]:
    """How many processes of each role gave a sign lately; 0 where none did."""
    counted = (
        select(ProcessSign.role, func.count())
        .where(ProcessSign.seen_at >= db_after(-SILENT_S))
        .group_by(ProcessSign.role)
    )
    with db.reading() as session:
        return dict.fromkeys(ROLES, 0) | dict(session.execute(counted).all())


def take_sign(db: Database, name: str) -> None:
    """Take the row of a process away that ends in order.

    Raises:
        DatabaseUnavailable: it stays, and is forgotten later.
    """
    with db.writing() as session:
        session.execute(delete(ProcessSign).where(ProcessSign.name == name))
