"""Which audits of a listing are supported at a false discovery rate: Benjamini-Hochberg over the whole listing, not over a page."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import Session

from db.models import Audit
from db.parts import Parts, stretches
from db.reading.reader import select_audits
from db.reading.selection import ANSWERED_ALONE, narrow, without_support
from db.session import Database
from wherefrom.records import AuditFilter, AuditSummary, Support
from wherefrom.statistics import passing_limit


def judge(db: Database, filters: AuditFilter, level: float) -> Support:
    """Judge all audits of a listing by their conformal p; two statements, and one before them where filters are looked up.

    Args:
        db: The database.
        filters: The listing. Every audit that passes them and has a conformal p counts as one test; `support` itself narrows nothing here.
        level: The false discovery rate, in (0, 1).

    Raises:
        ValueError: the level is outside of its range.
    """
    found = _Found()
    with db.reading() as session:
        found.add(session, narrow(session, without_support(filters)).conditions, level)
    return found.support(level)


def judging(db: Database, filters: AuditFilter, level: float) -> Parts[Support]:
    """The same for a large listing, a part of the audits at a time.

    Raises:
        ValueError: the level is outside of its range.
    """
    found = _Found()
    with db.reading() as session:
        wanted = narrow(session, without_support(filters)).conditions
    for some in stretches(db, Audit.id):
        with db.reading() as session:
            found.add(session, (Audit.id.between(*some), *wanted), level)
        yield
    return found.support(level)


@dataclass
class _Found:
    """What was found of the audits of a listing so far."""

    judged: int = 0
    answered: int = 0
    #: The conformal p that do not exceed the level: no larger one is ever supported.
    small: list[float] = field(default_factory=list)

    def add(self, session: Session, wanted: Sequence[ColumnElement[bool]], level: float) -> None:
        """Count the audits of which this holds."""
        counted = session.execute(select_audits(*_COUNTS).where(*wanted)).one()
        self.judged += counted.judged
        self.answered += counted.answered
        small = select_audits(Audit.conformal_p).where(*wanted, Audit.conformal_p <= level)
        self.small += [row[0] for row in session.execute(small)]

    def support(self, level: float) -> Support:
        """What all of them come to."""
        limit = passing_limit(self.small, level, tests=self.judged)
        return Support(
            level=level,
            limit=limit,
            supported=0 if limit is None else sum(p <= limit for p in self.small),
            judged=self.judged,
            uncalibrated=self.answered - self.judged,
        )


_COUNTS = (
    func.count(Audit.conformal_p).label("judged"),
    func.count().filter(*ANSWERED_ALONE).label("answered"),  # no calibration judges a group
)


def marked(audits: Iterable[AuditSummary], support: Support) -> tuple[AuditSummary, ...]:
    """The audits with `supported` set; it stays None where an audit has no conformal p."""
    return tuple(
        one
        if one.conformal_p is None
        else one.model_copy(update={"supported": support.passes(one.conformal_p)})
        for one in audits
    )
