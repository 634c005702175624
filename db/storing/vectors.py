"""Stores the similarity vectors of answered outputs beside their texts; the vector of an erased text is never stored."""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import FlaggedText, OutputVector
from db.statements import insert_new


def store_vectors(session: Session, bundle_id: int, vectors: Mapping[int, bytes]) -> None:
    """Store vectors by output, except where the text is gone or there is one; two statements, none without vectors."""
    if not vectors:
        return
    rows = [
        {"flagged_output_id": output_id, "bundle_id": bundle_id, "vector": vectors[output_id]}
        for output_id in lock_texts(session, vectors)
    ]
    if rows:
        unique = (OutputVector.flagged_output_id, OutputVector.bundle_id)
        session.execute(insert_new(session, OutputVector, unique), rows)


def lock_texts(session: Session, output_ids: Iterable[int]) -> Sequence[int]:
    """The outputs of these whose text is there, in order.

    The texts are locked against erasure until the transaction ends: an erasure that comes later takes with it what is stored beside them.
    """
    there = (
        select(FlaggedText.flagged_output_id)
        .where(FlaggedText.flagged_output_id.in_(output_ids))
        .order_by(FlaggedText.flagged_output_id)
        .with_for_update(read=True, key_share=True)
    )
    return session.scalars(there).all()
