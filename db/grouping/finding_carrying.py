"""What people said of findings, carried over to another bundle: outputs that are asked again under it found findings with the names they had.

A finding takes over what the majority of its founders stood in. Its title comes along, two findings that take over the same one are one again, and outputs that people
had split apart found findings apart. Which outputs are alike is still decided under the new bundle.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from db.models import Audit, Finding, FindingEntryRow, FindingOutput
from db.reading.finding_roots import ROOT
from wherefrom.records import FindingEvent

#: Fewest outputs that found a finding of their own where people had split them off.
LEAST = 3
#: Share of the founders from which on a finding takes over theirs.
MAJORITY = 0.5


@dataclass(frozen=True)
class Part:
    """Outputs that found a finding, and where each stood under other bundles."""

    audit_ids: Sequence[int]
    stood: dict[int, int]


@dataclass(frozen=True)
class Origin:
    """The finding of another bundle that is taken over."""

    finding_id: int
    title: str | None
    #: The finding of this bundle that has taken it over already.
    taken_by: int | None


def parts_of(session: Session, bundle_id: int, audit_ids: Sequence[int]) -> list[Part]:
    """The founders of a finding, those apart that people had split apart elsewhere; one or two statements."""
    stood = _stood(session, bundle_id, audit_ids)
    counts = Counter(stood.values())
    large = [root for root, number in counts.most_common() if number >= LEAST]
    split = _split_off(session, large) if len(large) > 1 else set()
    apart = [root for root in large[1:] if root in split]
    found = [[one for one in audit_ids if stood.get(one) == root] for root in apart]
    rest = [one for one in audit_ids if stood.get(one) not in apart]
    if len(rest) < LEAST:
        return [Part(audit_ids, stood)]
    return [Part(some, {one: stood[one] for one in some if one in stood}) for some in (rest, *found)]


def _stood(session: Session, bundle_id: int, audit_ids: Sequence[int]) -> dict[int, int]:
    """The newest finding of another bundle that each output stands in, by its audit here."""
    here, there = aliased(Audit), aliased(Audit)
    query = (
        select(here.id, ROOT.label("root"))
        .join(there, (there.flagged_output_id == here.flagged_output_id) & (there.bundle_id != bundle_id))
        .join(FindingOutput, FindingOutput.audit_id == there.id)
        .join(Finding, Finding.id == FindingOutput.finding_id)
        .where(here.id.in_(audit_ids))
        .order_by(here.id, there.id)
    )
    return {row.id: row.root for row in session.execute(query)}


def _split_off(session: Session, roots: Sequence[int]) -> set[int]:
    """Those of the findings that people took apart from another one of them: by a split, or by taking one out of the other again."""
    entry, one, other = FindingEntryRow, aliased(Finding), aliased(Finding)
    events = (FindingEvent.SPLIT, FindingEvent.TAKEN_OUT)
    here, there = (func.coalesce(side.merged_into, side.id) for side in (one, other))
    query = (
        select(here, there)
        .join_from(entry, one, one.id == entry.finding_id)
        .join(other, other.id == entry.other_id)
        .where(entry.event.in_(events), here.in_(roots), there.in_(roots), here != there)
    )
    return {root for pair in session.execute(query) for root in pair}


def origin_of(session: Session, bundle_id: int, part: Part) -> Origin | None:
    """The finding that most of the founders stood in; None where there is none. What took it over already counts only where people had put it together."""
    if not part.stood:
        return None
    [(root, number)] = Counter(part.stood.values()).most_common(1)
    if number <= MAJORITY * len(part.audit_ids):
        return None
    merged = aliased(Finding)
    query = select(
        Finding.title, select(merged.id).where(merged.merged_into == root).exists().label("together")
    )
    row = session.execute(query.where(Finding.id == root)).one()
    taken = select(func.min(ROOT)).where(Finding.carried_from == root, Finding.bundle_id == bundle_id)
    return Origin(root, row.title, session.scalar(taken) if row.together else None)


def take_over(session: Session, finding_id: int, origin: Origin, *, outputs: int) -> None:
    """Note where a new finding comes from; what was one there is one here."""
    whole = origin.taken_by
    if whole is not None:
        # under its lock: somebody may just have put it into another one, and nothing goes through two
        held = update(Finding).where(Finding.id == whole).values(due=True).returning(ROOT)
        whole = int(session.execute(held).scalar_one())
        grown = update(Finding).where(Finding.id == whole)
        session.execute(grown.values(outputs=Finding.outputs + outputs, due=True))
    mine = update(Finding).where(Finding.id == finding_id)
    session.execute(mine.values(carried_from=origin.finding_id, merged_into=whole))
