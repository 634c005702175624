# ruff: noqa: ARG001 - SQLAlchemy dictates the signatures of its hooks
"""How much a key may do: requests in a moment, and outputs, measurements, what-ifs, exports and re-audits in a day (UTC).

The web processes share one row of the database for each key and each thing. A key without quotas costs no statement. Requests are
paid by the generic cell rate algorithm: one number, the second up to which they are paid for, says how many of a burst are left.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import Float, Update, case, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.models import KeyBudget
from db.session import Database
from db.statements import insert_new
from wherefrom.errors import ConfigurationError, DatabaseUnavailable, QuotaSpent, TooManyRequests

_DAY_S = 86_400
#: A key is paid for at most a burst ahead. What lies farther, by more than a wait for a lock explains (seconds), is of slower bounds or of
#: a clock that was set back, and counts no more: it would lock the key out for as long.
_AHEAD_S = 15.0
#: Longest wait that somebody is told, seconds: by then the limit may be another one.
_LONGEST_WAIT_S = float(_DAY_S)


class Spending(StrEnum):
    """What a quota counts; stored by value."""

    REQUESTS = "requests"
    OUTPUTS = "outputs"
    MEASUREMENTS = "measurements"
    WHAT_IFS = "what_ifs"
    EXPORTS = "exports"
    REAUDITS = "reaudits"


@dataclass(frozen=True)
class Quotas:
    """How much a key may do; what is None is not bounded."""

    #: Requests in a second, over a longer time.
    requests_per_second: float | None = None
    #: Requests at once; without it, those of a second, at least one.
    burst: int | None = None
    #: Of each day, in UTC.
    outputs: int | None = None
    measurements: int | None = None
    what_ifs: int | None = None
    exports: int | None = None
    reaudits: int | None = None

    @property
    def given(self) -> bool:
        """Whether anything is bounded."""
        return any(value is not None for value in asdict(self).values())

    def stored(self) -> dict[str, float] | None:
        """As `api_key.quotas` holds them; None where nothing is bounded."""
        return {name: value for name, value in asdict(self).items() if value is not None} or None

    def check(self) -> None:
        """Refuse quotas that mean nothing.

        Raises:
            ConfigurationError: one is negative, or a burst has no rate.
        """
        if self.requests_per_second is not None and self.requests_per_second <= 0:
            raise ConfigurationError(
                "requests per second must be more than 0; leave the option out for no bound"
            )
        if self.burst is not None and (self.burst < 1 or self.requests_per_second is None):
            raise ConfigurationError("a burst is at least 1 request, and needs --requests-per-second")
        below = [name for name, value in asdict(self).items() if value is not None and value < 0]
        if below:
            raise ConfigurationError(f"{below[0]} must not be negative; 0 allows none")


#: Nothing is bounded.
NO_QUOTAS = Quotas()


def quotas_of(stored: Mapping[str, Any] | None) -> Quotas:
    """The quotas in `api_key.quotas`; what a later release added there is left out."""
    known = {field.name for field in fields(Quotas)}
    return Quotas(**{name: value for name, value in (stored or {}).items() if name in known})


@dataclass(frozen=True)
class Budget:
    """Whose spending is counted, and up to what."""

    key_id: int
    quotas: Quotas


def pay_request(db: Database, budget: Budget) -> None:
    """Count one request.

    A database that cannot be written now refuses nobody: reading goes on without the bound.

    Raises:
        TooManyRequests: the key asks faster than it may.
    """
    rate = budget.quotas.requests_per_second
    if rate is None:
        return
    step, burst = 1.0 / rate, budget.quotas.burst or max(1, int(rate))
    try:
        with db.writing() as session:
            wait_s = _paid_until(session, budget.key_id, step=step, burst=burst)
    except DatabaseUnavailable:
        return
    if wait_s > 0:
        raise TooManyRequests(
            f"this API key may send {rate:g} requests a second, {burst} at once; wait {max(wait_s, 0.1):.1f} s",
            retry_after_s=min(wait_s, _LONGEST_WAIT_S),
        )


def _paid_until(session: Session, key_id: int, *, step: float, burst: int) -> float:
    """Seconds until the next request would be taken; 0 where this one was."""
    now = db_epoch()
    mine = (KeyBudget.api_key_id == key_id, KeyBudget.what == Spending.REQUESTS)
    used = KeyBudget.used
    begun = case((used > now + burst * step + _AHEAD_S, now), (used > now, used), else_=now)
    paid = update(KeyBudget).where(*mine, begun + step - now <= burst * step).values(used=begun + step)
    row = {"api_key_id": key_id, "what": Spending.REQUESTS.value, "day": 0, "used": 0.0}
    if _fits(session, paid, row):
        return 0.0
    ahead: float = session.scalars(select(KeyBudget.used - now).where(*mine)).one()
    return max(0.001, ahead + step - burst * step)


def pay(db: Database, budget: Budget, what: Spending, number: int = 1) -> None:
    """Count what a key is about to do today.

    Raises:
        QuotaSpent: it would be more than its quota; nothing was counted.
        DatabaseUnavailable: it cannot be counted.
    """
    most = getattr(budget.quotas, what.value, None)
    if most is None or number <= 0:
        return
    today, left_s = _today()
    mine = (KeyBudget.api_key_id == budget.key_id, KeyBudget.what == what)
    used = case((KeyBudget.day == today, KeyBudget.used), else_=0.0)
    paid = update(KeyBudget).where(*mine, used + number <= most).values(used=used + number, day=today)
    row = {"api_key_id": budget.key_id, "what": what.value, "day": today, "used": 0.0}
    with db.writing() as session:
        if _fits(session, paid, row):
            return
        spent = int(session.scalars(select(used).where(*mine)).one())
    name = what.value.replace("_", "-")
    raise QuotaSpent(
        f"this API key may have {most} {name} a day; {spent} are spent, and {number} more were asked for. The day ends at 00:00 UTC",
        retry_after_s=left_s,
    )


def give_back(db: Database, budget: Budget, what: Spending, number: int) -> None:
    """Take back what was counted and not done; of a day that has ended, nothing.

    A database that is away takes nothing back: what was stored is stored, and whoever sent it is told so.
    """
    if getattr(budget.quotas, what.value, None) is None or number <= 0:
        return
    today, _ = _today()
    mine = (KeyBudget.api_key_id == budget.key_id, KeyBudget.what == what, KeyBudget.day == today)
    with suppress(DatabaseUnavailable), db.writing() as session:
        session.execute(update(KeyBudget).where(*mine).values(used=KeyBudget.used - number))


def _fits(session: Session, paid: Update, row: Mapping[str, Any]) -> bool:
    """Pay; False where it would be too much. The row of a key that did none of it before is made."""
    if _changed(session, paid):
        return True
    session.execute(insert_new(session, KeyBudget, (KeyBudget.api_key_id, KeyBudget.what)), [row])
    return _changed(session, paid)


def _changed(session: Session, statement: Update) -> bool:
    found = session.execute(statement.execution_options(synchronize_session=False))
    return bool(found.rowcount)  # type: ignore[attr-defined] # a CursorResult


def _today() -> tuple[int, float]:
    """The number of the day in UTC, and how long it lasts yet, seconds."""
    now = time.time()
    return int(now // _DAY_S), _DAY_S - now % _DAY_S


class db_epoch(FunctionElement[float]):  # noqa: N801 - it is used like a SQL function
    """The database's clock as seconds since 1970: web machines may differ in theirs."""

    type = Float(53)
    inherit_cache = True


@compiles(db_epoch, "sqlite")
def _epoch_sqlite(element: db_epoch, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_epoch, "postgresql")
def _epoch_postgresql(element: db_epoch, compiler: SQLCompiler, **kwargs: Any) -> str:
    return "CAST(extract(epoch FROM statement_timestamp()) AS double precision)"
