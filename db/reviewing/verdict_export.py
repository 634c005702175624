"""Outputs with the blind verdicts that stand, for calibration: texts, training examples, who found what."""

from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import select

from db.audit_trail.reads import note_file, note_texts
from db.models import Audit, Bundle, FlaggedOutput, FlaggedText, Review, TrainingExample
from db.reading.standing import standing
from db.session import Database
from wherefrom.records import BlindVerdict, JudgedOutput, Message, Via

#: Audits of one transaction.
_AT_ONCE = 200


def judged_outputs(db: Database) -> Iterator[JudgedOutput]:
    """All outputs with standing blind verdicts whose text is there, in the order of their audits."""
    note_file()
    after = 0
    while True:
        page = _page(db, after)
        yield from page
        if len(page) < _AT_ONCE:
            return
        after = page[-1].audit_id


def _page(db: Database, after: int) -> list[JudgedOutput]:
    blind = (Review.blind.is_(True), *standing())
    numbers = (
        select(Audit.id)
        .where(Audit.id > after, Audit.id.in_(select(Review.audit_id).where(*blind)))
        .join(FlaggedText, FlaggedText.flagged_output_id == Audit.flagged_output_id)
        .order_by(Audit.id)
        .limit(_AT_ONCE)
    )
    with db.reading() as session:
        audit_ids = list(session.scalars(numbers))
        heads = session.execute(
            select(
                Audit.id, Bundle.name, FlaggedOutput.model, FlaggedText.turns, FlaggedText.completion,
                FlaggedText.plain_prompt,
            )
            .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
            .join(FlaggedText, FlaggedText.flagged_output_id == FlaggedOutput.id)
            .outerjoin(Bundle, Bundle.id == Audit.bundle_id)
            .where(Audit.id.in_(audit_ids))
            .order_by(Audit.id)
        ).all()  # fmt: skip
        given = session.execute(
            select(
                Review.audit_id,
                Review.rank,
                Review.verdict,
                Review.reviewer,
                Review.via,
                TrainingExample.example_id,
            )
            .join(TrainingExample, TrainingExample.id == Review.training_example_id)
            .where(Review.audit_id.in_(audit_ids), *blind)
            .order_by(Review.id)
        ).all()
    note_texts(audit_ids)
    verdicts: dict[int, list[BlindVerdict]] = defaultdict(list)
    for row in given:
        verdicts[row.audit_id].append(
            BlindVerdict(
                example_id=row.example_id,
                rank=row.rank,
                verdict=row.verdict,
                reviewer=row.reviewer,
                proven=row.via is not None and row.via is not Via.LOCAL,
            )
        )
    return [
        JudgedOutput(
            audit_id=row.id,
            bundle=row.name,
            model=row.model,
            messages=tuple(Message.model_validate(turn) for turn in row.turns),
            plain_prompt=bool(row.plain_prompt),
            completion=row.completion,
            verdicts=tuple(verdicts[row.id]),
        )
        for row in heads
    ]
