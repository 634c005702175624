"""Which audits of a listing are supported at a false discovery rate: Benjamini-Hochberg over the whole listing, not over a page."""

from collections.abc import Iterable

from sqlalchemy import func

from db.models import Audit, FlaggedOutput
from db.reader import conditions, select_audits
from db.session import Database
from wherefrom.records import AuditFilter, AuditState, AuditSummary, Support
from wherefrom.statistics import passing_limit


def judge(db: Database, filters: AuditFilter, level: float) -> Support:
    """Judge all audits of a listing by their conformal p; two statements.

    Args:
        db: The database.
        filters: The listing. Every audit that passes them and has a conformal p counts as one test.
        level: The false discovery rate, in (0, 1).

    Raises:
        ValueError: the level is outside of its range.
    """
    wanted = conditions(filters)
    counts = select_audits(
        func.count(Audit.conformal_p).label("judged"),
        func.count()
        .filter(
            Audit.state.in_([state for state in AuditState if state.is_answered]),
            FlaggedOutput.members.is_(None),  # no calibration judges a group
        )
        .label("answered"),
    ).where(*wanted)
    small = select_audits(Audit.conformal_p).where(*wanted, Audit.conformal_p <= level)
    with db.reading() as session:
        counted = session.execute(counts).one()
        p_values = [row[0] for row in session.execute(small)]
    limit = passing_limit(p_values, level, tests=counted.judged)
    return Support(
        level=level,
        limit=limit,
        supported=0 if limit is None else sum(p <= limit for p in p_values),
        judged=counted.judged,
        uncalibrated=counted.answered - counted.judged,
    )


def marked(audits: Iterable[AuditSummary], support: Support) -> tuple[AuditSummary, ...]:
    """The audits with `supported` set; it stays None where an audit has no conformal p."""
    return tuple(
        one
        if one.conformal_p is None
        else one.model_copy(update={"supported": support.passes(one.conformal_p)})
        for one in audits
    )
