"""What somebody supposes in place of a flagged output."""

from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from wherefrom.records.audits import AuditState
from wherefrom.records.flagged import Frozen, Text


class HypotheticalRequest(Frozen):
    """Another answer to the prompt of a flagged output, or an acceptable one beside it."""

    completion: Text | None = Field(
        default=None, description="The answer to explain in place of the flagged one; without it, the same."
    )
    preferred: Text | None = Field(
        default=None,
        description="An acceptable answer: what taught the model to say the one and not the other?",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.completion or "").strip() and not (self.preferred or "").strip():
            raise ValueError("give `completion`, `preferred`, or both")
        return self


class HypotheticalRecord(Frozen):
    """One supposed output with its audit, newest first in lists."""

    audit_id: int
    output_id: int
    state: AuditState
    #: The first characters of the answer; empty when erased.
    excerpt: str
    has_preferred: bool
    top_source: str | None
    created_at: datetime
