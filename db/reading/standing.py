"""Which verdicts stand: what follows from the append-only history of reviews, as SQL."""

from typing import Any

from sqlalchemy import exists, func
from sqlalchemy.orm import aliased

from db.models import Review
from db.statements import walked


def standing() -> tuple[Any, ...]:
    """Conditions on `Review`: a verdict that was not taken back, and that no later one of the same person on the same target replaces."""
    undo_row, later, its_undo = aliased(Review), aliased(Review), aliased(Review)
    replaced = exists().where(
        later.id > Review.id,
        later.audit_id == Review.audit_id,
        walked(later.person_id) == Review.person_id,  # by the audit: somebody may have judged thousands
        later.blind == Review.blind,
        func.coalesce(later.training_example_id, 0) == func.coalesce(Review.training_example_id, 0),
        later.verdict.is_not(None),
        ~exists().where(its_undo.undoes_id == later.id),
    )
    return (Review.verdict.is_not(None), ~exists().where(undo_row.undoes_id == Review.id), ~replaced)
