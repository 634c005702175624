"""Which audits of a listing are supported at a false discovery rate: Benjamini-Hochberg over the whole listing, not over a page."""

from collections.abc import Iterable

from sqlalchemy import func

from db.models import Audit, FlaggedOutput
from db.reading.reader import select_audits
from db.reading.selection import ANSWERED, narrow, without_support
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
    with db.reading() as session:
        wanted = narrow(session, without_support(filters)).conditions
        counted = session.execute(select_audits(*_COUNTS).where(*wanted)).one()
        small = select_audits(Audit.conformal_p).where(*wanted, Audit.conformal_p <= level)
        p_values = [row[0] for row in session.execute(small)]
    limit = passing_limit(p_values, level, tests=counted.judged)
    return Support(
        level=level,
        limit=limit,
        supported=0 if limit is None else sum(p <= limit for p in p_values),
        judged=counted.judged,
        uncalibrated=counted.answered - counted.judged,
    )


_COUNTS = (
    func.count(Audit.conformal_p).label("judged"),
    func.count()
    .filter(
        Audit.state.in_(ANSWERED),
        FlaggedOutput.members.is_(None),  # no calibration judges a group
    )
    .label("answered"),
)


def marked(audits: Iterable[AuditSummary], support: Support) -> tuple[AuditSummary, ...]:
    """The audits with `supported` set; it stays None where an audit has no conformal p."""
    return tuple(
        one
        if one.conformal_p is None
        else one.model_copy(update={"supported": support.passes(one.conformal_p)})
        for one in audits
    )
