"""Erases flagged outputs: texts, vectors, words, what people quoted of them, and what was supposed in their place.

A row of `flagged_output` stays with its audits, their numbers and their citations: a tombstone that says when it was erased and by what. Its key is
destroyed in the same transaction, so that no digest in the trail can be tried out. Words, vectors and the words of findings' names go with `flagged_text`, by the database itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, cast, delete, func, literal, or_, select, update
from sqlalchemy.orm import Session

from db.audit_trail.trail import Event, TrailKind, record_events
from db.clock import db_now
from db.erasure import holds
from db.erasure.quoting import Quotations, erase_comments_about, erase_comments_on_output, erase_quotations
from db.models import (
    Audit,
    Citation,
    Finding,
    FindingOutput,
    FlaggedOutput,
    FlaggedText,
    OutputGroupMember,
    ReviewItem,
)
from db.remedies import hypotheticals
from db.statements import carry_out
from db.storing.examples import CHUNK
from db.storing.item_keys import destroy_keys, kept_digests
from wherefrom.records.erasing import NO_DIGEST

#: What the client makes a key of where nobody gave one (`wherefrom.client.service`).
_CONTENT_KEY = "sha256:"


@dataclass(frozen=True)
class ErasedOutput:
    """An output that was erased, and what it said, for whoever looks for copies elsewhere. It is never stored or logged."""

    output_id: int
    producer: str
    key: str
    completion: str
    #: Everything that stood in it: turns, completion, acceptable answer, labels.
    texts: tuple[str, ...]


def erase_outputs(session: Session, output_ids: Iterable[int], *, by: str) -> int:
    """Erase outputs and what was supposed in their place; how many. Those that are erased already are passed over.

    Args:
        session: A transaction that writes.
        output_ids: Which; at most `CHUNK`.
        by: What the tombstone says: `request`, or `rule:` and a name.

    Raises:
        Held: one of them is under a legal hold; the caller rolls back.
    """
    holds.lock_erasing(session)
    wanted = sorted(set(output_ids))
    _lock(session, wanted)
    found = read_outputs(session, wanted, lock=True)
    if not found:
        return 0
    ids = [one.output_id for one in found]
    holds.refuse_held_outputs(session, ids)
    digests = _digests(session, ids)
    _erase_rows(session, found, by=by)
    audit_ids = list(session.scalars(select(Audit.id).where(Audit.flagged_output_id.in_(ids))))
    _erase_beside(session, audit_ids)
    quoted = Quotations(text for one in found for text in one.texts)
    erase_comments_on_output(session, audit_ids)
    erase_comments_about(session, audit_ids, quoted)
    erase_quotations(session, quoted)
    _erase_quoting_answers(session, ids, quoted)
    _tell(session, ids, digests, by=by)
    return len(found)


def _lock(session: Session, output_ids: Sequence[int]) -> None:
    """Wait for whoever supposes something in the place of these outputs, so that the next statement sees it (`db.remedies.hypotheticals`)."""
    rows = select(FlaggedOutput.id).where(FlaggedOutput.id.in_(output_ids)).order_by(FlaggedOutput.id)
    session.execute(rows.with_for_update())


def read_outputs(session: Session, output_ids: Iterable[int], *, lock: bool = False) -> list[ErasedOutput]:
    """Outputs that are not erased yet, with what was supposed in their place.

    Args:
        session: Where to read.
        output_ids: Which; at most `CHUNK`.
        lock: Whether their rows are locked.
    """
    ids = sorted(set(output_ids))
    query = (
        select(FlaggedOutput, FlaggedText)
        .outerjoin(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
        .where(
            or_(FlaggedOutput.id.in_(ids), FlaggedOutput.hypothetical_of.in_(ids)),
            FlaggedOutput.erased_at.is_(None),
        )
        .order_by(FlaggedOutput.id)
    )
    rows = session.execute(query.with_for_update(of=FlaggedOutput) if lock else query)
    return [_erased(output, text) for output, text in rows]


def _erased(output: FlaggedOutput, text: FlaggedText | None) -> ErasedOutput:
    texts = [str(value) for value in output.labels.values()]
    if text is not None:
        texts += [str(turn.get("content", "")) for turn in text.turns]
        texts += [text.completion, text.preferred or ""]
    return ErasedOutput(
        output_id=output.id,
        producer=output.producer,
        key=output.idempotency_key,
        completion="" if text is None else text.completion,
        texts=tuple(one for one in texts if one),
    )


def _erase_rows(session: Session, found: Sequence[ErasedOutput], *, by: str) -> None:
    ids = [one.output_id for one in found]
    carry_out(session, delete(FlaggedText).where(FlaggedText.flagged_output_id.in_(ids)))
    gone: dict[str, Any] = {
        "erased_at": db_now(),
        "erased_by": by,
        "content_sha256": NO_DIGEST,
        "labels": {},
    }
    carry_out(session, update(FlaggedOutput).where(FlaggedOutput.id.in_(ids)).values(**gone))
    # a key that was made of the text is a digest of it
    digests = [one.output_id for one in found if one.key.startswith((_CONTENT_KEY, hypotheticals.KEY))]
    named = literal("erased-") + cast(FlaggedOutput.id, String)
    carry_out(
        session, update(FlaggedOutput).where(FlaggedOutput.id.in_(digests)).values(idempotency_key=named)
    )


def _erase_beside(session: Session, audit_ids: Sequence[int]) -> None:
    """What tells of a text without being one: where words stand in common with training examples, the digest that equal outputs share."""
    mine = Citation.audit_id.in_(audit_ids)
    carry_out(session, update(Citation).where(mine).values(spans=None, overlaps=None))
    carry_out(session, update(ReviewItem).where(ReviewItem.audit_id.in_(audit_ids)).values(dedupe_key=None))
    of = select(FindingOutput.finding_id).where(FindingOutput.audit_id.in_(audit_ids))
    roots = select(func.coalesce(Finding.merged_into, Finding.id)).where(Finding.id.in_(of))
    carry_out(session, update(Finding).where(or_(Finding.id.in_(of), Finding.id.in_(roots))).values(due=True))


def _erase_quoting_answers(session: Session, ids: Sequence[int], quoted: Quotations) -> None:
    """Acceptable answers of groups that these outputs belong to, where they quote them."""
    groups = select(OutputGroupMember.group_id).where(OutputGroupMember.member_id.in_(ids))
    rows = session.scalars(select(FlaggedText).where(FlaggedText.flagged_output_id.in_(groups))).all()
    for row in rows:
        kept = [one for one in row.against or [] if not quoted.in_prose(str(one.get("completion", "")))]
        if kept != (row.against or []):
            row.against = kept


def _digests(session: Session, ids: Sequence[int]) -> dict[str, str]:
    """What the trail kept of these outputs when they came, by subject: keyed, and noise once the keys are gone."""
    known = select(FlaggedOutput.id, FlaggedOutput.content_sha256).where(FlaggedOutput.id.in_(ids))
    return kept_digests(
        session, {f"flagged_output:{row.id}": row.content_sha256 for row in session.execute(known)}
    )


def _tell(session: Session, ids: Sequence[int], digests: Mapping[str, str], *, by: str) -> None:
    subjects = [f"flagged_output:{one}" for one in ids]
    destroy_keys(session, subjects)
    events = [
        Event(
            TrailKind.OUTPUT_ERASED,
            one,
            {"by": by} | ({"content_hmac": digests[one]} if one in digests else {}),
        )
        for one in subjects
    ]
    record_events(session, events)


def output_ids_of(session: Session, audit_ids: Sequence[int]) -> list[int]:
    """The outputs of audits; each once."""
    found: set[int] = set()
    for start in range(0, len(audit_ids), CHUNK):
        some = Audit.id.in_(audit_ids[start : start + CHUNK])
        found |= set(session.scalars(select(Audit.flagged_output_id).where(some)))
    return sorted(found)
