"""Groups of outputs: asked once, claimed and closed like any audit, read with their members, refused by name where they cannot be one question."""

import pytest
from sqlalchemy import select, text

from db.measuring import group_measurements, measurements
from db.models import Citation, OutputGroupMember
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader, support
from db.session import Database
from db.storing import groups
from db.storing.groups import AskedGroup
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    audit_row,
    claim,
    claim_one,
    draft,
    example,
    record,
    recorded_statements,
    register,
)
from wherefrom.errors import OUTPUT_ERASED, InvalidRequest, NotFound
from wherefrom.records import (
    AuditFilter,
    AuditState,
    ClaimedOutputGroup,
    FlaggedRecord,
    GroupRequest,
    IntakeResult,
    Method,
    Severity,
)

ANSWER = FlaggedRecord(prompt="May I?", completion="Ask us first.", model="any")


def ask(db: Database, *audit_ids: int, **asked: object) -> IntakeResult:
    """What is answered to a question about these audits."""
    return groups.ask_group(db, AskedGroup(audit_ids, **asked), producer="auditor")  # type: ignore[arg-type]  # fields of AskedGroup


def outputs(db: Database, count: int, **fields: object) -> list[int]:
    """Audits of new outputs."""
    made = accept(db, *(record(number, **fields) for number in range(count)))
    return [one.audit_id for one in made if one.audit_id is not None]


def test_a_group_is_an_audit_of_its_own(db: Database, bundle_id: int) -> None:
    """Claimed with its members in the order asked and its acceptable answers, as urgent as the most urgent; closed and read with both."""
    ids = [*outputs(db, 2), accept(db, record(7, severity=Severity.CRITICAL))[0].audit_id or 0]
    asked = ask(db, ids[2], ids[0], ids[1], against=(ANSWER,), name="refund promises")
    assert (asked.status, asked.state) == ("accepted", AuditState.PENDING)
    assert audit_row(db, asked.audit_id or 0).priority == 0
    taken = claim(db, bundle_id)
    (group,) = [one for one in taken.audits if isinstance(one, ClaimedOutputGroup)]
    assert [one.completion for one in group.members] == ["Answer 7.", "Answer 0.", "Answer 1."]
    assert [one.prompt for one in group.members] == ["Question 7?", "Question 0?", "Question 1?"]
    assert group.against == (ANSWER,)
    assert not any(isinstance(one, ClaimedOutputGroup) for one in taken.audits if one is not group)
    drafts = [
        draft(1, example(0)).model_copy(update={"member_influence": (0.5, -0.25, 0.125)}),
        draft(2, example(1)).model_copy(update={"member_influence": (0.0, 0.25, 0.5)}),
    ]
    assert AuditQueue(db).finish([Finished(group, attribution(*drafts), 0.1)]) == {asked.audit_id}
    detail = reader.get_audit(db, asked.audit_id or 0)
    assert (detail.audit.members, detail.audit.flag_reason, detail.audit.state) == (
        3,
        "refund promises",
        "done",
    )
    assert [one.audit_id for one in detail.members] == [ids[2], ids[0], ids[1]]
    assert [one.excerpt for one in detail.members] == ["Answer 7.", "Answer 0.", "Answer 1."]
    assert detail.against == (ANSWER,)
    assert [one.member_influence for one in detail.citations] == [(0.5, -0.25, 0.125), (0.0, 0.25, 0.5)]
    member = reader.get_audit(db, ids[0])
    assert (member.audit.members, member.members, member.group_audit_id) == (None, (), asked.audit_id)
    assert detail.group_audit_id is None
    listed = {one.audit_id: one.members for one in reader.list_audits(db, AuditFilter()).items}
    assert listed[asked.audit_id or 0] == 3
    with db.reading() as session:
        viewed = session.execute(text("SELECT members FROM v_audits WHERE members IS NOT NULL")).all()
        influence = session.scalars(select(Citation.member_influence).order_by(Citation.rank)).all()
    assert [row.members for row in viewed] == [3]
    assert influence == [[0.5, -0.25, 0.125], [0.0, 0.25, 0.5]]


def test_the_same_question_is_stored_once(db: Database, bundle_id: int) -> None:
    """The same outputs in the same order with the same name and answers; another one is another question, and a taken key a conflict."""
    ids = outputs(db, 3)
    first = ask(db, *ids)
    again = ask(db, *ids, ids[0])
    assert (again.status, again.audit_id, again.output_id) == ("duplicate", first.audit_id, first.output_id)
    assert ask(db, *reversed(ids)).status == "accepted"
    assert ask(db, *ids, against=(ANSWER,)).status == "accepted"
    assert ask(db, *ids, idempotency_key="mine").status == "accepted"
    assert ask(db, ids[0], idempotency_key="mine").status == "conflict"
    with db.reading() as session:
        assert len(session.scalars(select(OutputGroupMember.group_id).distinct()).all()) == 4


def test_what_cannot_be_one_question(db: Database, bundle_id: int) -> None:
    """A missing audit, a group in a group, an erased output, two models, too many."""
    ids = outputs(db, 2)
    other = accept(db, record(5, model="another"))[0].audit_id or 0
    group = ask(db, *ids).audit_id or 0
    with pytest.raises(NotFound, match="audit 999 does not exist"):
        ask(db, ids[0], 999)
    with pytest.raises(InvalidRequest, match=f"audit {group} is of a group itself"):
        ask(db, ids[0], group)
    with pytest.raises(InvalidRequest, match="outputs of one model"):
        ask(db, ids[0], other)
    with pytest.raises(InvalidRequest, match="1 to 256"):
        ask(db)
    with pytest.raises(InvalidRequest, match="1 to 256"):
        ask(db, *range(1, 258))
    erase(db, ids[0])
    with pytest.raises(InvalidRequest, match=f"the text of audit {ids[0]} was erased"):
        ask(db, *ids)


def erase(db: Database, audit_id: int) -> None:
    """Erase the output of an audit."""
    with db.writing() as session:
        output_id = audit_row(db, audit_id).flagged_output_id
        session.execute(text("DELETE FROM flagged_text WHERE flagged_output_id = :id"), {"id": output_id})


def test_an_erased_member_ends_the_groups_audit(db: Database, bundle_id: int) -> None:
    """Its words cannot be read any more, so the question is not answered as if it were another one; the others of the batch are."""
    ids = outputs(db, 2)
    group = ask(db, *ids).audit_id or 0
    erase(db, ids[1])
    taken = claim(db, bundle_id)
    assert [one.audit_id for one in taken.audits] == [ids[0]]
    row = audit_row(db, group)
    assert (row.state, row.code) == (AuditState.REJECTED, OUTPUT_ERASED)
    assert "a member of the group" in (row.reason or "")
    detail = reader.get_audit(db, group)
    assert [one.excerpt for one in detail.members] == ["Answer 0.", ""]


def test_a_group_waits_for_a_bundle_like_an_output(db: Database) -> None:
    """Without one it is rejected as of an unknown model, and queued when there is one."""
    ids = outputs(db, 2)
    asked = ask(db, *ids)
    assert (asked.state, asked.code) == (AuditState.REJECTED, "unknown_model")
    register(db)
    assert audit_row(db, asked.audit_id or 0).state is AuditState.PENDING


def test_no_effect_is_measured_on_a_group_and_no_calibration_judges_it(db: Database, bundle_id: int) -> None:
    """Both are of single outputs: the request is refused in words, and the listing counts it among none."""
    ids = answered(
        db, bundle_id, record(0), record(1), answer=attribution(draft(1, example(0)), conformal_p=0.01)
    )
    group = ask(db, *ids).audit_id or 0
    AuditQueue(db).finish([Finished(claim_one(db, bundle_id), attribution(draft(1, example(1))), 0.1)])
    assert audit_row(db, group).state is AuditState.DONE
    with pytest.raises(InvalidRequest, match="measure the citation on the audit of one of its members"):
        measurements.request_measurement(db, audit_id=group, rank=1, method=Method.REFIT, requested_by="me")
    with pytest.raises(InvalidRequest, match="measure on the audit of one of its members"):
        group_measurements.request_group(
            db, audit_id=group, request=GroupRequest(source="source-0"), requested_by="me"
        )
    found = support.judge(db, AuditFilter(), 0.1)
    assert (found.judged, found.supported, found.uncalibrated) == (2, 2, 0)


def test_members_cost_one_statement(db: Database, bundle_id: int) -> None:
    """However many there are; an ordinary audit costs none more than before."""
    ids = outputs(db, 6)
    few, many = ask(db, *ids[:2]).audit_id or 0, ask(db, *ids).audit_id or 0
    counts = []
    for audit_id in (ids[0], few, many):
        with recorded_statements() as statements:
            reader.get_audit(db, audit_id)
        counts.append(len(statements))
    assert counts[1] == counts[2] == counts[0] + 1
