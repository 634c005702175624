"""What somebody supposes in place of a flagged output, and two audits side by side."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from wherefrom.records.audits import AuditDetail, AuditState, CitationRecord
from wherefrom.records.bounds import Items
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


class ComparedCitation(Frozen):
    """One training example in two audits; None where an audit does not cite it."""

    training_example_id: int
    example_id: str
    source: str
    completion: str
    rank: int | None
    other_rank: int | None
    influence_score: float | None
    other_influence_score: float | None

    @property
    def change(self) -> str:
        """What became of it: stayed, gone or came."""
        if self.rank is None:
            return "came"
        return "gone" if self.other_rank is None else "stayed"


class Comparison(Frozen):
    """The citations of two audits side by side: those of the first in their order, then what came."""

    audit_id: int
    other_audit_id: int
    same_bundle: bool
    citations: Annotated[Items[ComparedCitation], Field(default=())]

    def count(self, change: str) -> int:
        """How many stayed, are gone, or came."""
        return sum(one.change == change for one in self.citations)


def compare(one: AuditDetail, other: AuditDetail) -> Comparison:
    """The citations of two audits by training example; opponents are left out. Ranks compare, scores only within one audit."""
    first, second = _by_example(one.citations), _by_example(other.citations)
    everything = [*first.values(), *(found for key, found in second.items() if key not in first)]
    return Comparison(
        audit_id=one.audit.audit_id,
        other_audit_id=other.audit.audit_id,
        same_bundle=one.audit.bundle == other.audit.bundle,
        citations=tuple(_compared(found, first, second) for found in everything),
    )


def _by_example(citations: Sequence[CitationRecord]) -> dict[str, CitationRecord]:
    return {one.text_sha256 + one.example_id: one for one in citations}


def _compared(
    found: CitationRecord, first: dict[str, CitationRecord], second: dict[str, CitationRecord]
) -> ComparedCitation:
    key = found.text_sha256 + found.example_id
    here, there = first.get(key), second.get(key)
    return ComparedCitation(
        training_example_id=found.training_example_id,
        example_id=found.example_id,
        source=found.source,
        completion=found.completion,
        rank=here.rank if here else None,
        other_rank=there.rank if there else None,
        influence_score=here.influence_score if here else None,
        other_influence_score=there.influence_score if there else None,
    )
