"""Findings as auditors read them: the list, and one with what belongs to it.

`db.grouping.finding_changes` has what people do to them, `db.grouping.finding_work` what the sweeper does.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import (
    Audit,
    Bundle,
    Finding,
    FindingEntryRow,
    FindingOutput,
    FindingWord,
    FlaggedOutput,
    FlaggedText,
    OutputVector,
    Person,
)
from db.pages import Keyset
from db.reading.culprits import culprits_of_finding
from db.reading.finding_roots import ROOT, root_of, whole_of
from db.reading.selection import ANSWERED_ALONE
from db.session import Database
from db.statements import AnySelect
from wherefrom.records import (
    FindingDetail,
    FindingEntry,
    FindingSummary,
    MergedFinding,
    Page,
    RelatedFinding,
    Via,
)

#: Entries of a history, training examples of the board, and findings of other bundles that one finding shows.
ENTRIES, CULPRITS, RELATED = 200, 10, 10
#: Newest outputs of a finding that are looked for under other bundles, and oldest answered outputs that are looked at for vectors.
LOOKED_FOR = 2_000
#: Between the words of a name.
BETWEEN = " · "

_COLUMNS = (
    Finding.id.label("finding_id"),
    Finding.title,
    Bundle.name.label("bundle"),
    Finding.outputs,
    Finding.sources,
    Finding.created_at,
    Finding.newest_at,
    Finding.counted_at,
)


def list_findings(
    db: Database, *, bundle: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[FindingSummary]:
    """One page of the findings that stand by themselves, those with the most outputs first; two statements.

    Args:
        db: The database.
        bundle: Only those under the bundle of this name.
        cursor: `next_cursor` of the page before; None for the first page.
        limit: Most findings of the page.

    Raises:
        InvalidRecord: the cursor is not one that this list gave out.
    """
    query = _select().where(Finding.merged_into.is_(None))
    if bundle is not None:
        query = query.where(
            Finding.bundle_id == select(Bundle.id).where(Bundle.name == bundle).scalar_subquery()
        )
    order = Keyset(Finding.outputs, Finding.id)
    with db.reading() as session:
        found = order.read(session, query, cursor=cursor, limit=limit, record=_summary)
        words = _words(session, [one.finding_id for one in found.items])
    return Page(items=tuple(_named(one, words) for one in found.items), next_cursor=found.next_cursor)


def without_vectors(db: Database) -> int:
    """How many of the oldest `LOOKED_FOR` answered outputs with a text have no similarity vector, so that no finding will hold them; one statement.

    Outputs have none that an older release answered, or an engine that gives none.
    """
    oldest = (
        select(Audit.flagged_output_id, Audit.bundle_id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .join(FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id)
        .where(
            *ANSWERED_ALONE,
            FlaggedOutput.hypothetical_of.is_(None),
        )
        .order_by(Audit.id)
        .limit(LOOKED_FOR)
        .subquery("oldest")
    )
    vector = exists().where(
        OutputVector.flagged_output_id == oldest.c.flagged_output_id,
        OutputVector.bundle_id == oldest.c.bundle_id,
    )
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(oldest).where(~vector)) or 0


def get_finding(db: Database, finding_id: int) -> FindingDetail:
    """One finding with its culprits, what went into it, findings of other bundles over the same outputs, and its history.

    A number that went into another finding leads to that one. The number of statements does not grow with the finding.

    Raises:
        NotFound: there is none with this number.
    """
    with db.reading() as session:
        root = root_of(session, finding_id)
        summary = _summary(session.execute(_select().where(Finding.id == root)).mappings().one())
        merged = _merged(session, root)
        whole = whole_of(session, root)
        related = _related(session, whole)
        parts = [one.finding_id for one in merged] + [one.finding_id for one in related]
        words = _words(session, [root, *parts])
        history = _history(session, root)
    return FindingDetail(
        finding=_named(summary, words),
        culprits=culprits_of_finding(db, whole, most=CULPRITS),
        merged=tuple(_renamed(one, words) for one in merged),
        related=tuple(_renamed(one, words) for one in related),
        history=tuple(history),
    )


def _select() -> AnySelect:
    return select(*_COLUMNS).join(Bundle, Bundle.id == Finding.bundle_id)


def _summary(row: RowMapping) -> FindingSummary:
    columns = {one.name: row[one.name] for one in _COLUMNS}
    return FindingSummary(name="", words=(), **columns)


def _named(one: FindingSummary, words: dict[int, list[str]]) -> FindingSummary:
    mine = words.get(one.finding_id, [])
    return one.model_copy(update={"words": tuple(mine), "name": one.title or _name(one.finding_id, mine)})


def _renamed(one: Any, words: dict[int, list[str]]) -> Any:
    """The same with the words of its finding where it has no title."""
    return (
        one
        if one.name
        else one.model_copy(update={"name": _name(one.finding_id, words.get(one.finding_id, []))})
    )


def _name(finding_id: int, words: Sequence[str]) -> str:
    return BETWEEN.join(words) or f"Finding {finding_id}"


def _words(session: Session, finding_ids: Sequence[int]) -> dict[int, list[str]]:
    """Words that at least one stored text still has, in their order, by finding."""
    rows = session.execute(
        select(FindingWord.finding_id, FindingWord.place, func.min(FindingWord.word).label("word"))
        .where(FindingWord.finding_id.in_(finding_ids))
        .group_by(FindingWord.finding_id, FindingWord.place)
        .order_by(FindingWord.finding_id, FindingWord.place)
    )
    found: dict[int, list[str]] = {}
    for row in rows:
        found.setdefault(row.finding_id, []).append(row.word)
    return found


def _merged(session: Session, root: int) -> list[MergedFinding]:
    query = (
        select(
            Finding.id.label("finding_id"), func.coalesce(Finding.title, "").label("name"), Finding.outputs
        )
        .where(Finding.merged_into == root)
        .order_by(Finding.id)
    )
    return [MergedFinding(**row) for row in session.execute(query).mappings()]


def _related(session: Session, whole: Sequence[int]) -> list[RelatedFinding]:
    mine = (
        select(Audit.flagged_output_id, Audit.bundle_id)
        .join(FindingOutput, FindingOutput.audit_id == Audit.id)
        .where(FindingOutput.finding_id.in_(whole))
        .order_by(FindingOutput.audit_id.desc())
        .limit(LOOKED_FOR)
        .subquery("mine")
    )
    other = aliased(Audit)
    shared = func.count().label("shared")
    roots = (
        select(ROOT.label("root"), shared)
        .join(FindingOutput, FindingOutput.finding_id == Finding.id)
        .join(other, other.id == FindingOutput.audit_id)
        .join(mine, mine.c.flagged_output_id == other.flagged_output_id)
        .where(other.bundle_id != mine.c.bundle_id)
        .group_by(ROOT)
        .order_by(shared.desc())
        .limit(RELATED)
        .subquery("roots")
    )
    query = (
        select(
            Finding.id.label("finding_id"),
            func.coalesce(Finding.title, "").label("name"),
            Bundle.name.label("bundle"),
            roots.c.shared,
        )
        .join(roots, roots.c.root == Finding.id)
        .join(Bundle, Bundle.id == Finding.bundle_id)
        .order_by(roots.c.shared.desc(), Finding.id)
    )
    return [RelatedFinding(**row) for row in session.execute(query).mappings()]


def _history(session: Session, root: int) -> list[FindingEntry]:
    entry = FindingEntryRow
    query = (
        select(
            entry.id.label("entry_id"),
            entry.finding_id,
            entry.event,
            entry.other_id,
            entry.outputs,
            entry.title,
            Person.name.label("by"),
            entry.via,
            entry.created_at.label("at"),
        )
        .outerjoin(Person, Person.id == entry.person_id)
        .where(or_(entry.finding_id == root, entry.other_id == root))
        .order_by(entry.id.desc())
        .limit(ENTRIES)
    )
    return [_entry(dict(row)) for row in session.execute(query).mappings()]


def _entry(row: dict[str, Any]) -> FindingEntry:
    via, other = row.pop("via"), row.pop("other_id")
    return FindingEntry(other=other, proven=via not in {None, Via.LOCAL}, **row)
