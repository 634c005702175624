"""Stores the similarity vectors of answered outputs beside their texts; the vector of an erased text is never stored."""

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import FlaggedText, OutputVector
from db.statements import insert_new


def store_vectors(session: Session, bundle_id: int, vectors: Mapping[int, bytes]) -> None:
    """Store vectors by output, except where the text is gone or there is one; two statements, none without vectors.

    The texts are locked against erasure until the transaction ends: an erasure that comes later takes the vector with it.
    """
    if not vectors:
        return
    there = (
        select(FlaggedText.flagged_output_id)
        .where(FlaggedText.flagged_output_id.in_(vectors))
        .order_by(FlaggedText.flagged_output_id)
        .with_for_update(read=True, key_share=True)
    )
    rows = [
        {"flagged_output_id": output_id, "bundle_id": bundle_id, "vector": vectors[output_id]}
        for output_id in session.scalars(there)
    ]
    if rows:
        unique = (OutputVector.flagged_output_id, OutputVector.bundle_id)
        session.execute(insert_new(session, OutputVector, unique), rows)
