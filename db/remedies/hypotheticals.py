"""Outputs that were never said: stored and audited like any, marked as what they are, and left out of every count.

A hypothetical output is a row of `flagged_output` with its own audit and the channel `CHANNEL`; `hypothetical_of` names the flagged output in whose place it
stands. Lists, exports, support, review queues, sources and the SQL views leave it out; whoever knows its number can read it.
"""

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from db.audit_trail.reads import note_texts
from db.faults import refusals_as_errors
from db.models import Audit, FlaggedOutput, FlaggedText
from db.queues.claimed import record_of
from db.session import Database
from db.statements import insert_rows
from db.storing.intake import (
    active_bundles,
    audit_row,
    insert_outputs,
    read_stored,
    record_accepted,
    result_of,
    text_row,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    FlaggedRecord,
    HypotheticalRecord,
    HypotheticalRequest,
    IntakeResult,
    sha256_of_json,
)
from wherefrom.spans import current_traceparent

#: How such an output comes in.
CHANNEL = "hypothetical"
#: Begins their keys, which are digests of what they say.
KEY = "hypothetical-"
#: Characters of an answer that a list shows, and most outputs of a list.
EXCERPT_CHARS, LISTED = 160, 50


def suppose(db: Database, audit_id: int, asked: HypotheticalRequest, *, producer: str) -> IntakeResult:
    """Queue an audit of what somebody supposes; the same again gets the same ids.

    Args:
        db: The database.
        audit_id: Audit of the flagged output in whose place it stands.
        asked: What is supposed.
        producer: Who asks.

    Raises:
        NotFound: there is no such audit.
        InvalidRequest: it is of a group, its text was erased, or nothing differs; the text says which.
        DatabaseUnavailable: nothing was stored.
    """
    with refusals_as_errors(), db.writing() as session:
        output, text = _flagged(session, audit_id)
        _keep(session, output.hypothetical_of or output.id, audit_id)
        record = _supposed(record_of(output, text), asked)
        digest = sha256_of_json([output.id, record.content_sha256()])
        key = f"{KEY}{digest[:40]}"
        new = insert_outputs(session, {key: (record, digest)}, producer=producer, channel=CHANNEL)
        if key in new:
            _insert(session, new[key], record, of=output.hypothetical_of or output.id, digest=digest)
        stored = read_stored(session, producer, [key])[key]
    return result_of(key, digest, stored, is_new=key in new)


def hypotheticals_of(db: Database, audit_id: int) -> list[HypotheticalRecord]:
    """What was supposed in place of an audit's output, newest first.

    Raises:
        NotFound: there is no such audit.
    """
    output = select(func.coalesce(FlaggedOutput.hypothetical_of, FlaggedOutput.id)).join(
        Audit, Audit.flagged_output_id == FlaggedOutput.id
    )
    with db.reading() as session:
        of = session.scalar(output.where(Audit.id == audit_id))
        if of is None:
            raise NotFound(f"audit {audit_id} does not exist")
        rows = session.execute(
            select(
                Audit.id.label("audit_id"),
                FlaggedOutput.id.label("output_id"),
                Audit.state,
                func.coalesce(func.substr(FlaggedText.completion, 1, EXCERPT_CHARS), "").label("excerpt"),
                FlaggedText.preferred.is_not(None).label("has_preferred"),
                Audit.top_source,
                Audit.created_at,
            )
            .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
            .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
            .where(FlaggedOutput.hypothetical_of == of)
            .order_by(Audit.id.desc())
            .limit(LISTED)
        )
        found = [HypotheticalRecord(**row) for row in rows.mappings()]
    note_texts(one.audit_id for one in found)
    return found


def _flagged(session: Session, audit_id: int) -> tuple[FlaggedOutput, FlaggedText]:
    row = session.execute(
        select(FlaggedOutput, FlaggedText)
        .join(Audit, Audit.flagged_output_id == FlaggedOutput.id)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(Audit.id == audit_id)
    ).one_or_none()
    if row is None:
        raise NotFound(f"audit {audit_id} does not exist")
    output, text = row
    if output.members is not None:
        raise InvalidRequest(f"audit {audit_id} is of a group of outputs; suppose something of one of them")
    if text is None:
        raise _erased(audit_id)
    return output, text


def _keep(session: Session, output_id: int, audit_id: int) -> None:
    """Let an erasure of the flagged output wait until this transaction ends: it takes with it what is supposed by then.

    Raises:
        InvalidRequest: it was erased since its text was read.
    """
    mine = select(FlaggedOutput.erased_at).where(FlaggedOutput.id == output_id)
    if session.scalar(mine.with_for_update(read=True, key_share=True)) is not None:
        raise _erased(audit_id)


def _erased(audit_id: int) -> InvalidRequest:
    return InvalidRequest(f"the text of audit {audit_id} was erased; nothing can be put in its place")


def _supposed(record: FlaggedRecord, asked: HypotheticalRequest) -> FlaggedRecord:
    """The record that is audited: what belongs to the flagged answer alone goes where the answer is another one."""
    changes: dict[str, object] = {}
    if asked.completion is not None and asked.completion.strip() != record.completion.strip():
        changes = {"completion": asked.completion, "spans": (), "token_ids": None}
    if asked.preferred is not None and asked.preferred.strip():
        changes["preferred"] = asked.preferred
    if all(getattr(record, name) == value for name, value in changes.items()):
        raise InvalidRequest(
            "nothing differs from the flagged output; change the answer, or give an acceptable one"
        )
    given = record.model_dump(by_alias=True, exclude_none=True, exclude={"idempotency_key", *changes})
    return FlaggedRecord.model_validate(given | {k: v for k, v in changes.items() if v is not None})


def _insert(session: Session, output_id: int, record: FlaggedRecord, *, of: int, digest: str) -> None:
    mark = update(FlaggedOutput).where(FlaggedOutput.id == output_id).values(hypothetical_of=of)
    session.execute(mark.execution_options(synchronize_session=False))
    text = text_row(output_id, record, traceparent=current_traceparent())
    session.execute(insert_rows(FlaggedText), [text])
    bundle_id = active_bundles(session, {record.model}).get(record.model)
    session.execute(insert(Audit), [audit_row(output_id, record, bundle_id)])
    record_accepted(session, {f"flagged_output:{output_id}": digest}, hypothetical_of=of)
