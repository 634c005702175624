"""What people do to findings: rename, merge, take out again, split, ask as one question. The sweeper never undoes it.

A merge moves no output: the other finding keeps its row and points to where it went. So it can be taken out again as it was.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.grouping.finding_names import name_finding
from db.grouping.finding_work import EXEMPLARS, mark_exemplars, new_finding
from db.models import Audit, Finding, FindingEntryRow, FindingOutput, FlaggedText
from db.reading.finding_roots import root_of, whole_of
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.statements import insert_rows
from db.storing import groups
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import FindingEvent, FindingSplit, IntakeResult
from wherefrom.records.bounds import MAX_MEMBERS

_TRAIL = {
    FindingEvent.RENAMED: TrailKind.FINDING_RENAMED,
    FindingEvent.MERGED: TrailKind.FINDING_MERGED,
    FindingEvent.TAKEN_OUT: TrailKind.FINDING_TAKEN_OUT,
    FindingEvent.SPLIT: TrailKind.FINDING_SPLIT,
}


def rename(db: Database, finding_id: int, title: str, *, by: Reviewer) -> int:
    """Give a finding a title, or its telling words back where the title is empty; the number of the finding that stands by itself.

    Raises:
        NotFound: there is none with this number.
    """
    with db.writing() as session:
        root = _locked_root(session, finding_id)
        wanted = title.strip() or None
        session.execute(update(Finding).where(Finding.id == root).values(title=wanted))
        _note(session, root, FindingEvent.RENAMED, by=by, title=wanted)
    return root


def merge(db: Database, finding_id: int, into: int, *, by: Reviewer) -> int:
    """Let a finding, with what went into it, go into another one; the number of that one.

    Raises:
        NotFound: there is none with one of the numbers.
        InvalidRequest: they are one finding already, or of two bundles.
    """
    with db.writing() as session:
        mine, target = root_of(session, finding_id), root_of(session, into)
        rows = _lock(session, {mine, target})
        _still_alone(session, mine, target)
        if mine == target:
            raise InvalidRequest(f"findings {finding_id} and {into} are one already")
        if rows[mine].bundle_id != rows[target].bundle_id:
            raise InvalidRequest(
                f"findings {mine} and {target} are of two bundles, whose similarities do not compare"
            )
        whole = whole_of(session, mine)
        session.execute(update(Finding).where(Finding.id.in_(whole)).values(merged_into=target))
        moved = rows[mine].outputs
        _recount(session, [target])
        _note(session, target, FindingEvent.MERGED, by=by, other=mine, outputs=moved, moved=whole)
    name_finding(db, target)
    return target


def take_out(db: Database, finding_id: int, *, by: Reviewer) -> int:
    """Let a finding that went into another one stand by itself again, with what it had brought; its number.

    Outputs that came meanwhile stay with the part that they are most like.

    Raises:
        NotFound: there is none with this number.
        InvalidRequest: it stands by itself.
    """
    with db.writing() as session:
        root = root_of(session, finding_id)
        _lock(session, {root, finding_id})
        _still_alone(session, root)
        if root == finding_id:
            raise InvalidRequest(f"finding {finding_id} stands by itself already")
        brought = _brought(session, finding_id)
        still = (Finding.id.in_(brought), Finding.merged_into == root, Finding.id != finding_id)
        session.execute(update(Finding).where(*still).values(merged_into=finding_id))
        session.execute(update(Finding).where(Finding.id == finding_id).values(merged_into=None))
        counts = _recount(session, [root, finding_id])
        _note(
            session, root, FindingEvent.TAKEN_OUT, by=by, other=finding_id, outputs=counts.get(finding_id, 0)
        )
    for one in (root, finding_id):
        name_finding(db, one)
    return finding_id


def split(db: Database, finding_id: int, wanted: FindingSplit, *, by: Reviewer) -> int:
    """Let outputs leave a finding for one of their own; the number of the new one. Merging it back undoes it.

    Raises:
        NotFound: there is no such finding, or an audit's output does not stand in it.
        InvalidRequest: nothing would be left.
    """
    chosen = sorted(set(wanted.audit_ids))
    with db.writing() as session:
        root = _locked_root(session, finding_id)
        whole = whole_of(session, root)
        mine = (FindingOutput.audit_id.in_(chosen), FindingOutput.finding_id.in_(whole))
        here = set(session.scalars(select(FindingOutput.audit_id).where(*mine)))
        if missing := [one for one in chosen if one not in here]:
            raise NotFound(f"the output of audit {missing[0]} does not stand in finding {root}")
        row = session.get_one(Finding, root)
        if len(chosen) >= row.outputs:
            raise InvalidRequest(f"these are all outputs of finding {root}; rename it instead")
        title = wanted.title.strip() or None
        new = new_finding(session, row.bundle_id, outputs=len(chosen), title=title)
        session.execute(update(FindingOutput).where(*mine).values(finding_id=new))
        mark_exemplars(session, chosen[:EXEMPLARS])
        _recount(session, whole)
        _note(session, root, FindingEvent.SPLIT, by=by, other=new, outputs=len(chosen), title=title)
    for one in (root, new):
        name_finding(db, one)
    return new


def ask_as_one(db: Database, finding_id: int, *, producer: str) -> IntakeResult:
    """Ask one question about the outputs of a finding, the newest `MAX_MEMBERS` whose text is there.

    Its name in lists is the title, if somebody gave one: telling words may have to be erased.

    Raises:
        NotFound: there is none with this number.
        InvalidRequest: all its texts were erased.
    """
    with db.reading() as session:
        root = root_of(session, finding_id)
        title = session.scalar(select(Finding.title).where(Finding.id == root))
        newest = (
            select(FindingOutput.audit_id)
            .join(Audit, Audit.id == FindingOutput.audit_id)
            .join(FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id)
            .where(FindingOutput.finding_id.in_(whole_of(session, root)))
            .order_by(FindingOutput.audit_id.desc())
            .limit(MAX_MEMBERS)
        )
        audit_ids = sorted(session.scalars(newest))
    if not audit_ids:
        raise InvalidRequest(f"all texts of finding {root} were erased; nothing can be asked about them")
    asked = groups.AskedGroup(tuple(audit_ids), name=title or f"finding {root}")
    return groups.ask_group(db, asked, producer=producer)


def _locked_root(session: Session, finding_id: int) -> int:
    """The finding that stands by itself, held for this transaction.

    Raises:
        NotFound: there is none with this number.
        InvalidRequest: see `_still_alone`.
    """
    root = root_of(session, finding_id)
    _lock(session, {root})
    _still_alone(session, root)
    return root


def _still_alone(session: Session, *roots: int) -> None:
    """Look again under the locks: two people who merge two findings into each other must not lose both.

    Raises:
        InvalidRequest: one of them has gone into another finding since it was looked up.
    """
    for one in roots:
        if root_of(session, one) != one:
            raise InvalidRequest(f"finding {one} has just gone into another one; look at it again")


def _lock(session: Session, finding_ids: set[int]) -> dict[int, Any]:
    query = select(Finding.id, Finding.bundle_id, Finding.outputs).where(Finding.id.in_(finding_ids))
    return {row.id: row for row in session.execute(query.order_by(Finding.id).with_for_update())}


def _brought(session: Session, finding_id: int) -> list[int]:
    """What a finding brought along when it last went into another one."""
    last = (
        select(FindingEntryRow.moved)
        .where(FindingEntryRow.other_id == finding_id, FindingEntryRow.event == FindingEvent.MERGED)
        .order_by(FindingEntryRow.id.desc())
        .limit(1)
    )
    return list(session.scalar(last) or [])


def _recount(session: Session, finding_ids: Sequence[int]) -> dict[int, int]:
    """Count the outputs of findings, each with what went into it."""
    counts: dict[int, int] = {}
    for finding_id in finding_ids:
        mine = FindingOutput.finding_id.in_(whole_of(session, finding_id))
        counts[finding_id] = session.scalar(select(func.count()).select_from(FindingOutput).where(mine)) or 0
        values = {"outputs": counts[finding_id], "due": True}
        session.execute(update(Finding).where(Finding.id == finding_id).values(**values))
    return counts


def _note(
    session: Session,
    finding_id: int,
    event: FindingEvent,
    *,
    by: Reviewer,
    other: int | None = None,
    outputs: int = 0,
    title: str | None = None,
    moved: Sequence[int] | None = None,
) -> None:
    """Append to the history and to the trail; the trail gets no title, which may quote a text."""
    row = {
        "finding_id": finding_id,
        "event": event,
        "other_id": other,
        "outputs": outputs,
        "title": title,
        "moved": None if moved is None else list(moved),
        "person_id": by.person.person_id,
        "via": by.via,
    }
    session.execute(insert_rows(FindingEntryRow), [row])
    told = {"by": by.person.person_id, "via": by.via.value, "other": other, "outputs": outputs}
    record_events(session, [Event(_TRAIL[event], f"finding:{finding_id}", told)])
