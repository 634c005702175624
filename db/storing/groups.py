"""Groups of flagged outputs that are one question: asked for once, audited like any output, read with their members.

A group is a row of `flagged_output` of its own, with an audit of its own; its members are outputs that are there. Whatever waits, claims, stores and
lists audits needs to know nothing more. What was asked is decided by its content: the same outputs, in the same order, with the same name and acceptable answers are one question.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ScalarSelect, func, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from db.audit_trail.reads import note_texts
from db.faults import refusals_as_errors
from db.models import Audit, FlaggedOutput, FlaggedText, OutputGroupMember
from db.session import Database
from db.statements import insert_rows
from db.storing.intake import (
    PRIORITY,
    active_bundles,
    audit_row,
    insert_outputs,
    read_stored,
    record_accepted,
    result_of,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import FlaggedRecord, IntakeResult, MemberRecord, Severity, sha256_of_json
from wherefrom.records.bounds import MAX_MEMBERS
from wherefrom.spans import current_traceparent

#: How a group came in.
CHANNEL = "group"
#: Reason of a group without a name.
UNNAMED = "group"
#: Characters of a member's completion that are shown.
EXCERPT_CHARS = 160


@dataclass(frozen=True)
class AskedGroup:
    """What is asked of a group."""

    #: Audits of its outputs, in order; the same output counts once.
    audit_ids: tuple[int, ...]
    #: Acceptable answers.
    against: tuple[FlaggedRecord, ...] = ()
    #: Its name, shown where an output has the reason that it was flagged for.
    name: str = UNNAMED
    #: The caller's key; by its content where None.
    idempotency_key: str | None = None


def ask_group(db: Database, asked: AskedGroup, *, producer: str) -> IntakeResult:
    """Store a group and its pending audit in one transaction; a question that was asked before is answered with the same ids.

    Args:
        db: The database.
        asked: The group.
        producer: Who asks; keys are unique per producer.

    Raises:
        NotFound: there is no audit with one of the ids.
        InvalidRequest: the outputs cannot be one question; the text says why.
        DatabaseUnavailable: nothing was stored.
    """
    if not 1 <= len(asked.audit_ids) <= MAX_MEMBERS or len(asked.against) > MAX_MEMBERS:
        raise InvalidRequest(f"a group has 1 to {MAX_MEMBERS} audits and at most as many acceptable answers")
    with refusals_as_errors(), db.writing() as session:
        members = _members(session, asked.audit_ids)
        model = members[0].model
        digest = sha256_of_json(
            {
                "members": [one.output_id for one in members],
                "against": [one.content_sha256() for one in asked.against],
                "name": asked.name,
            }
        )
        key = asked.idempotency_key or f"group-{digest[:40]}"
        severity = min((one.severity for one in members), key=PRIORITY.__getitem__)
        stub = FlaggedRecord(prompt="", completion="group", model=model, reason=asked.name, severity=severity)
        new = insert_outputs(
            session,
            {key: (stub, digest)},
            producer=producer,
            channel=CHANNEL,
            members=len(members),
        )
        if key in new:
            _insert_group(session, new[key], members, asked, digest=digest)
            bundle_id = active_bundles(session, {model}).get(model)
            session.execute(insert(Audit), [audit_row(new[key], stub, bundle_id)])
        stored = read_stored(session, producer, [key])[key]
    return result_of(key, digest, stored, is_new=key in new)


def models_of(db: Database, audit_ids: Sequence[int]) -> set[str]:
    """The models of the outputs of audits."""
    query = select(FlaggedOutput.model).join(Audit, Audit.flagged_output_id == FlaggedOutput.id)
    with db.reading() as session:
        return set(session.scalars(query.where(Audit.id.in_(audit_ids))))


@dataclass(frozen=True)
class _Member:
    output_id: int
    model: str
    severity: Severity


def _members(session: Session, audit_ids: Sequence[int]) -> list[_Member]:
    """The outputs of audits, in order, each once."""
    rows = session.execute(
        select(
            Audit.id,
            FlaggedOutput.id.label("output_id"),
            FlaggedOutput.model,
            FlaggedOutput.severity,
            FlaggedOutput.members,
            FlaggedText.flagged_output_id.label("text"),
        )
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(Audit.id.in_(audit_ids))
    )
    by_audit = {row.id: row for row in rows}
    found: dict[int, _Member] = {}
    for audit_id in audit_ids:
        row = by_audit.get(audit_id)
        if row is None:
            raise NotFound(f"audit {audit_id} does not exist")
        if row.members is not None:
            raise InvalidRequest(f"audit {audit_id} is of a group itself; name the audits of its members")
        if row.text is None:
            raise InvalidRequest(f"the text of audit {audit_id} was erased; leave it out")
        found[row.output_id] = _Member(row.output_id, row.model, row.severity)
    models = sorted({one.model for one in found.values()})
    if len(models) > 1:
        raise InvalidRequest(
            f"the outputs are of {len(models)} models ({', '.join(models[:3])}); a group has outputs of one model"
        )
    return list(found.values())


def _insert_group(
    session: Session, group_id: int, members: Sequence[_Member], asked: AskedGroup, *, digest: str
) -> None:
    answers = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in asked.against]
    text = {
        "flagged_output_id": group_id, "turns": [], "completion": "", "token_ids": None, "spans": [], "preferred": None,
        "plain_prompt": None, "against": answers, "indexed": True, "traceparent": current_traceparent(),
    }  # fmt: skip
    session.execute(insert_rows(FlaggedText), [text])
    rows = [
        {"group_id": group_id, "position": place, "member_id": one.output_id}
        for place, one in enumerate(members)
    ]
    session.execute(insert_rows(OutputGroupMember), rows)
    subject = f"flagged_output:{group_id}"
    record_accepted(session, {subject: digest}, members=len(members))


def members_of(session: Session, group_id: int) -> tuple[MemberRecord, ...]:
    """The outputs of a group in order, each with its first audit."""
    first = (
        select(func.min(Audit.id))
        .where(Audit.flagged_output_id == OutputGroupMember.member_id)
        .correlate(OutputGroupMember)
        .scalar_subquery()
    )
    rows = session.execute(
        select(
            OutputGroupMember.member_id.label("output_id"),
            Audit.id.label("audit_id"),
            Audit.state,
            Audit.top_source,
            func.coalesce(func.substr(FlaggedText.completion, 1, EXCERPT_CHARS), "").label("excerpt"),
        )
        .join(Audit, Audit.id == first)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == OutputGroupMember.member_id)
        .where(OutputGroupMember.group_id == group_id)
        .order_by(OutputGroupMember.position)
    )
    found = tuple(MemberRecord(**row) for row in rows.mappings())
    note_texts(one.audit_id for one in found)
    return found


def newest_group(output_id: "InstrumentedAttribute[int]") -> ScalarSelect[Any]:
    """The newest audit of a group that an output is a member of, as a column."""
    audit = aliased(Audit)
    return (
        select(func.max(audit.id))
        .join(OutputGroupMember, OutputGroupMember.group_id == audit.flagged_output_id)
        .where(OutputGroupMember.member_id == output_id)
        .scalar_subquery()
    )
