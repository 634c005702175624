"""What counts: audits of outputs that were said, and not those that somebody only supposes."""

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import InstrumentedAttribute, aliased

from db.bundles.catalogue import STORED_CORPUS_LIMIT
from db.models import Audit, Citation, Corpus, FlaggedOutput, TrainingExample


def of_what_was_said(audit_id: InstrumentedAttribute[int]) -> ColumnElement[bool]:
    """Whether an audit, by its id, is of an output that was said; those that are not are few."""
    return audit_id.not_in(_supposed_audits())


def is_of_corpus() -> ColumnElement[bool]:
    """Whether a stored training example counts among those of its source.

    Of a large corpus what is cited is stored, and what only a supposed output cites must not make a source larger.
    """
    cited, real = aliased(Citation), aliased(Citation)
    only_supposed = (
        select(cited.training_example_id)
        .join(TrainingExample, TrainingExample.id == cited.training_example_id)
        .join(Corpus, Corpus.id == TrainingExample.corpus_id)
        .where(cited.audit_id.in_(_supposed_audits()), Corpus.examples > STORED_CORPUS_LIMIT)
        .where(
            ~exists().where(
                real.training_example_id == cited.training_example_id,
                real.audit_id.not_in(_supposed_audits()),
            )
        )
    )
    return TrainingExample.id.not_in(only_supposed)


def _supposed_audits() -> Select[int]:
    return (
        select(Audit.id)
        .join(FlaggedOutput, FlaggedOutput.id == Audit.flagged_output_id)
        .where(FlaggedOutput.hypothetical_of.is_not(None))
    )


_supposed_of, _beside = aliased(Audit), aliased(Audit)

#: Of an audit: the first audit of the output in whose place its output is supposed, and the newest other audit of its own; under the names of `AuditDetail`.
OTHER_AUDITS = (
    select(func.min(_supposed_of.id))
    .where(_supposed_of.flagged_output_id == FlaggedOutput.hypothetical_of)
    .scalar_subquery()
    .label("hypothetical_of"),
    select(func.max(_beside.id))
    .where(_beside.flagged_output_id == Audit.flagged_output_id, _beside.id != Audit.id)
    .correlate(Audit)
    .scalar_subquery()
    .label("other_audit_id"),
)
