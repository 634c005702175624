"""What the sweeper reads and writes when it groups outputs into findings; `worker.sweeper.alike` decides which outputs are alike.

Vectors of different bundles do not compare, so each bundle has findings of its own. An output is placed once. Who stands in a finding is never moved here:
only outputs that stand in none join one, or found one together. What people merge or split therefore stays.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import LATE_COMMIT, db_after, db_now
from db.grouping import finding_carrying as carrying
from db.models import (
    Audit,
    Bundle,
    Citation,
    Finding,
    FindingEntryRow,
    FindingMark,
    FindingOutput,
    FindingWord,
    FlaggedOutput,
    OutputVector,
)
from db.reading.selection import ANSWERED_ALONE
from db.session import Database
from db.statements import insert_new, insert_rows
from wherefrom.records import FindingEvent

#: New outputs of one round, and outputs without a finding that are looked at again beside them: half of them the newest, half of them the next page of older ones.
BATCH, LOOSE = 1_000, 1_000
#: Outputs of a finding that new ones are compared with.
EXEMPLARS = 16
#: Citations of an output that count; opponents do not.
CITED = 10
#: Audits whose citations are read at once.
_CHUNK = 500
#: What grew gets new words when so long has passed since the last time, seconds.
RENAMED_AFTER_S = 60.0


@dataclass(frozen=True)
class AlikeOutput:
    """An output as it is compared: its vector, and what it cites."""

    audit_id: int
    #: int8; only its direction means something.
    vector: bytes
    #: Where it stands; None in none.
    finding_id: int | None = None
    #: Ranks by training example.
    cited: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Round:
    """What there is to group under one bundle."""

    bundle_id: int
    version: int
    #: Outputs that nobody has looked at, at most `BATCH`.
    new: Sequence[AlikeOutput]
    #: The newest ones that stand in no finding.
    loose: Sequence[AlikeOutput]
    exemplars: Sequence[AlikeOutput]
    #: Everything that ended before was looked at when this is stored.
    looked_to: datetime
    #: Where the next page of outputs without a finding begins; None at the newest again.
    loose_to: int | None = None


@dataclass(frozen=True)
class Grouped:
    """Where outputs go."""

    #: Findings by new output; None: it is like nothing else.
    placed: Mapping[int, int | None]
    #: Outputs, new or loose, that found a finding together.
    founded: Sequence[Sequence[int]]


def bundles_with_vectors(db: Database) -> Sequence[int]:
    """Bundles under which any output has a vector."""
    any_vector = exists().where(OutputVector.bundle_id == Bundle.id)  # DISTINCT would read the whole index
    with db.reading() as session:
        return session.scalars(select(Bundle.id).where(any_vector).order_by(Bundle.id)).all()


def read_round(db: Database, bundle_id: int) -> Round | None:
    """What is new under a bundle; None where nothing is."""
    with db.reading() as session:
        now = session.scalars(select(db_now())).one()
        mark = session.get(FindingMark, bundle_id)
        since = None if mark is None or mark.looked_to is None else mark.looked_to - LATE_COMMIT
        rows = session.execute(_unseen(bundle_id, since)).all()
    version = 0 if mark is None else mark.version
    looked_to = rows[-1].finished_at if len(rows) == BATCH else now
    if not rows:
        if mark is not None and mark.looked_to is not None and now - mark.looked_to > LATE_COMMIT:
            _store_mark(db, bundle_id, version, looked_to)
        return None
    with db.reading() as session:
        new = [AlikeOutput(row.id, row.vector) for row in rows]
        loose_ids, loose_to = _loose(session, bundle_id, None if mark is None else mark.loose_to)
        loose = _vectors(session, FindingOutput.audit_id.in_(loose_ids))
        exemplars = _vectors(session, _exemplars(bundle_id))
        cited = _cited(session, [one.audit_id for one in (*new, *loose, *exemplars)])
    new, loose, exemplars = (
        [replace(one, cited=cited.get(one.audit_id, {})) for one in some] for some in (new, loose, exemplars)
    )
    return Round(bundle_id, version, new, loose, exemplars, looked_to, loose_to)


def _unseen(bundle_id: int, since: datetime | None) -> Any:
    """Answered outputs that were said, are no group, and were not looked at, in the order in which they were answered."""
    seen = exists().where(FindingOutput.audit_id == Audit.id)
    wanted = [] if since is None else [Audit.finished_at >= since]
    return (
        select(Audit.id, Audit.finished_at, OutputVector.vector)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .join(OutputVector, _vector_of_audit())
        .where(
            Audit.bundle_id == bundle_id,
            *ANSWERED_ALONE,
            FlaggedOutput.hypothetical_of.is_(None),
            Audit.finished_at.is_not(None),
            *wanted,
            ~seen,
        )
        .order_by(Audit.finished_at, Audit.id)
        .limit(BATCH)
    )


def _vector_of_audit() -> Any:
    return (OutputVector.flagged_output_id == Audit.flagged_output_id) & (
        OutputVector.bundle_id == Audit.bundle_id
    )


def _loose(session: Session, bundle_id: int, before: int | None) -> tuple[list[int], int | None]:
    """The newest outputs without a finding, a page of older ones, and where the next page begins."""
    standing = select(FindingOutput.audit_id).where(
        FindingOutput.bundle_id == bundle_id, FindingOutput.finding_id.is_(None)
    )
    newest_first = standing.order_by(FindingOutput.audit_id.desc()).limit(LOOSE // 2)
    newest = list(session.scalars(newest_first))
    if len(newest) < LOOSE // 2:
        return newest, None
    begin = min(newest[-1], newest[-1] if before is None else before)
    page = list(session.scalars(newest_first.where(FindingOutput.audit_id < begin)))
    return newest + page, page[-1] if len(page) == LOOSE // 2 else None


def _exemplars(bundle_id: int) -> Any:
    return (
        FindingOutput.exemplar
        & (FindingOutput.bundle_id == bundle_id)
        & FindingOutput.finding_id.is_not(None)
    )


def _vectors(session: Session, wanted: Any) -> list[AlikeOutput]:
    query = (
        select(FindingOutput.audit_id, FindingOutput.finding_id, OutputVector.vector)
        .join(Audit, Audit.id == FindingOutput.audit_id)
        .join(OutputVector, _vector_of_audit())
        .where(wanted)
        .order_by(FindingOutput.audit_id)
    )
    return [AlikeOutput(row.audit_id, row.vector, row.finding_id) for row in session.execute(query)]


def _cited(session: Session, audit_ids: Sequence[int]) -> dict[int, dict[int, int]]:
    found: dict[int, dict[int, int]] = {}
    for start in range(0, len(audit_ids), _CHUNK):
        query = select(Citation.audit_id, Citation.training_example_id, Citation.rank).where(
            Citation.audit_id.in_(audit_ids[start : start + _CHUNK]), Citation.rank.between(1, CITED)
        )
        for row in session.execute(query):
            found.setdefault(row.audit_id, {})[row.training_example_id] = row.rank
    return found


def store_round(db: Database, done: Round, grouped: Grouped) -> bool:
    """Store where the outputs of a round go, in one transaction; False, and nothing stored, where another sweeper was quicker."""
    with db.writing() as session:
        if not _takes(session, done):
            return False
        new = {one.audit_id for one in done.new}
        founders = {audit_id for some in grouped.founded for audit_id in some}
        rows = [
            {
                "audit_id": audit_id,
                "bundle_id": done.bundle_id,
                "finding_id": None if audit_id in founders else grouped.placed.get(audit_id),
                "exemplar": False,
            }
            for audit_id in sorted(new)
        ]
        session.execute(insert_new(session, FindingOutput, (FindingOutput.audit_id,)), rows)
        _join(session, done, grouped)
        for some in grouped.founded:
            for part in carrying.parts_of(session, done.bundle_id, sorted(some)):
                _found(session, done.bundle_id, part)
        told = {"outputs": len(rows), "founded": len(grouped.founded)}
        record_events(session, [Event(TrailKind.FINDINGS_FILLED, f"bundle:{done.bundle_id}", told)])
    return True


def _store_mark(db: Database, bundle_id: int, version: int, looked_to: datetime) -> None:
    with db.writing() as session:
        session.execute(
            update(FindingMark)
            .where(FindingMark.bundle_id == bundle_id, FindingMark.version == version)
            .values(looked_to=looked_to)
        )


def _takes(session: Session, done: Round) -> bool:
    """Move the bundle's mark on, unless somebody else did since this round was read."""
    new = {"bundle_id": done.bundle_id, "looked_to": None, "version": 0}
    session.execute(insert_new(session, FindingMark, (FindingMark.bundle_id,)), [new])
    mine = (FindingMark.bundle_id == done.bundle_id, FindingMark.version == done.version)
    moved = (
        update(FindingMark)
        .where(*mine)
        .values(version=done.version + 1, looked_to=done.looked_to, loose_to=done.loose_to)
    )
    changed: int = session.execute(moved).rowcount  # type: ignore[attr-defined] # a CursorResult
    return changed == 1


def _join(session: Session, done: Round, grouped: Grouped) -> None:
    """Count those that join a finding, and let the first ones be compared with where it has too few."""
    joined: dict[int, list[int]] = {}
    for audit_id, finding_id in sorted(grouped.placed.items()):
        if finding_id is not None:
            joined.setdefault(finding_id, []).append(audit_id)
    if not joined:
        return
    into = _locked_with_wholes(session, joined)
    have: dict[int | None, int] = {}
    for one in done.exemplars:
        have[one.finding_id] = have.get(one.finding_id, 0) + 1
    exemplars: list[int] = []
    for finding_id, audit_ids in joined.items():
        root = into[finding_id]
        whole = [finding_id] if root is None else [finding_id, root]
        grown = {"outputs": Finding.outputs + len(audit_ids), "due": True}
        session.execute(update(Finding).where(Finding.id.in_(whole)).values(**grown))
        exemplars += audit_ids[: max(0, EXEMPLARS - have.get(finding_id, 0))]
    mark_exemplars(session, exemplars)


def _locked_with_wholes(session: Session, finding_ids: Iterable[int]) -> dict[int, int | None]:
    """Findings by number with what they went into; both are held, in the order of their numbers, as whoever merges holds them."""
    wholes = select(Finding.merged_into).where(Finding.id.in_(finding_ids), Finding.merged_into.is_not(None))
    ids = {*finding_ids, *session.scalars(wholes)}
    locked = select(Finding.id, Finding.merged_into).where(Finding.id.in_(ids)).order_by(Finding.id)
    return {row.id: row.merged_into for row in session.execute(locked.with_for_update())}


def _found(session: Session, bundle_id: int, part: carrying.Part) -> None:
    """Found a finding; where its outputs stood together under another bundle, it is called and put together as there."""
    audit_ids = part.audit_ids
    origin = carrying.origin_of(session, bundle_id, part)
    title = None if origin is None else origin.title
    finding_id = new_finding(session, bundle_id, outputs=len(audit_ids), title=title)
    mine = (FindingOutput.audit_id.in_(audit_ids), FindingOutput.finding_id.is_(None))
    session.execute(update(FindingOutput).where(*mine).values(finding_id=finding_id))
    mark_exemplars(session, audit_ids[:EXEMPLARS])
    entry = {
        "finding_id": finding_id,
        "event": FindingEvent.FOUNDED,
        "outputs": len(audit_ids),
        "other_id": None if origin is None else origin.finding_id,
        "title": title,
    }
    if origin is not None:
        carrying.take_over(session, finding_id, origin, outputs=len(audit_ids))
    session.execute(insert_rows(FindingEntryRow), [entry])


def new_finding(session: Session, bundle_id: int, *, outputs: int, title: str | None = None) -> int:
    """The number of a new finding, whose words are to be worked out."""
    row: dict[str, Any] = {
        "bundle_id": bundle_id,
        "title": title,
        "outputs": outputs,
        "sources": [],
        "num_words": 0,
        "due": True,
    }
    finding_id: int | None = session.scalar(insert(Finding).values(**row).returning(Finding.id))
    if finding_id is None:
        raise RuntimeError("the database returned no id for the new finding")
    return finding_id


def mark_exemplars(session: Session, audit_ids: Sequence[int]) -> None:
    """Compare new outputs with these from now on."""
    for start in range(0, len(audit_ids), _CHUNK):
        some = FindingOutput.audit_id.in_(audit_ids[start : start + _CHUNK])
        session.execute(update(FindingOutput).where(some).values(exemplar=True))


def due_findings(db: Database, *, most: int) -> Iterator[int]:
    """Findings whose words and sources are to be worked out: what grew, and what lost a word to an erasure."""
    rested = or_(Finding.counted_at.is_(None), Finding.counted_at < db_after(-RENAMED_AFTER_S))
    grown = select(Finding.id).where(Finding.due, Finding.merged_into.is_(None), rested)
    with db.reading() as session:
        found = list(session.scalars(grown.order_by(Finding.counted_at, Finding.id).limit(most)))
        if len(found) < most:
            found += session.scalars(_robbed(most - len(found)))
    yield from dict.fromkeys(found)


def _robbed(most: int) -> Any:
    words = (
        select(func.count(FindingWord.place.distinct()))
        .where(FindingWord.finding_id == Finding.id)
        .correlate(Finding)
        .scalar_subquery()
    )
    return (
        select(Finding.id)
        .where(Finding.num_words > words, Finding.merged_into.is_(None), ~Finding.due)
        .order_by(Finding.id)
        .limit(most)
    )
