"""Two audits side by side, and all outputs that were audited under two bundles.

Rows of two corpora are matched by the hash of all that the model saw of them, never by their number or id: a cleaned corpus counts its rows anew.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Protocol, TypeVar

from pydantic import Field

from wherefrom.records.audits import AuditDetail
from wherefrom.records.bounds import Items
from wherefrom.records.erasing import NO_DIGEST
from wherefrom.records.filters import Supported
from wherefrom.records.flagged import Frozen

#: Sources whose blame a comparison of bundles lists, those that moved most.
MOST_SOURCES = 200


class Cited(Protocol):
    """What a citation is matched by."""

    @property
    def rank(self) -> int:
        """Its place in the audit, from 1."""
        ...

    @property
    def training_example_id(self) -> int:
        """The stored row."""
        ...

    @property
    def text_sha256(self) -> str:
        """Hash of all that the model saw of it."""
        ...


C = TypeVar("C", bound=Cited)


class ComparedCitation(Frozen):
    """One training example in two audits; None where an audit does not cite it."""

    training_example_id: int = Field(
        description="The row that the first audit cites; else that of the other."
    )
    other_training_example_id: int | None = Field(
        default=None,
        description="The row that the other audit cites; of another corpus it has a number of its own.",
    )
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
    same_bundle = one.audit.bundle == other.audit.bundle
    return Comparison(
        audit_id=one.audit.audit_id,
        other_audit_id=other.audit.audit_id,
        same_bundle=same_bundle,
        citations=tuple(
            ComparedCitation(
                training_example_id=known.training_example_id,
                other_training_example_id=there.training_example_id if there else None,
                example_id=known.example_id,
                source=known.source,
                completion=known.completion,
                rank=here.rank if here else None,
                other_rank=there.rank if there else None,
                influence_score=here.influence_score if here else None,
                other_influence_score=there.influence_score if there else None,
            )
            for here, there in matched(one.citations, other.citations, by_text=not same_bundle)
            if (known := here or there) is not None
        ),
    )


def matched(
    ones: Sequence[C], others: Sequence[C], *, by_text: bool = True
) -> list[tuple[C | None, C | None]]:
    """Citations of two audits in pairs: those of the first in their order, then what only the other has.

    The same row is the same citation. Where the rows are of two corpora, equal contents are, one by one in the order of their ranks.

    Args:
        ones: of the first audit.
        others: of the other.
        by_text: whether the rows may be of two corpora; within one, two rows of the same words are two rows.
    """
    by_row = {one.training_example_id: one for one in others}
    same = {one.training_example_id for one in ones} & by_row.keys()
    left: dict[str, deque[C]] = defaultdict(deque)
    for other in others:
        if other.training_example_id not in same:
            left[other.text_sha256].append(other)
    pairs: list[tuple[C | None, C | None]] = []
    for one in ones:
        # Erased texts have no digest; that says nothing of what they were.
        alike = left.get(one.text_sha256) if by_text and one.text_sha256 != NO_DIGEST else None
        if one.training_example_id in same:
            pairs.append((one, by_row[one.training_example_id]))
        else:
            pairs.append((one, alike.popleft() if alike else None))
    came = {other.training_example_id for rest in left.values() for other in rest}
    return pairs + [(None, other) for other in others if other.training_example_id in came]


def moved(pairs: Sequence[tuple[Cited | None, Cited | None]]) -> float:
    """How much of the citations' strength went elsewhere: 0 where all kept their ranks, 1 where none is left.

    A citation's strength is 1 / rank, as on the board of culprits: ranks compare between audits, scores do not.
    """
    strengths = [(1 / here.rank if here else 0.0, 1 / there.rank if there else 0.0) for here, there in pairs]
    total = sum(here + there for here, there in strengths)
    return sum(abs(here - there) for here, there in strengths) / total if total else 0.0


class SupportShift(Frozen):
    """How many outputs had one kind of support under the first bundle, and one under the other."""

    before: Supported
    after: Supported
    outputs: int


class SourceShift(Frozen):
    """How the blame of one source moved between two bundles."""

    source: str
    first: int = Field(description="Outputs whose first citation comes from it, under the first bundle.")
    other_first: int = Field(description="The same under the other bundle.")
    gained: int = Field(description="Outputs whose first citation comes from it under the other bundle only.")
    lost: int = Field(description="Outputs whose first citation came from it under the first bundle only.")
    citations: int = Field(description="Its citations under the first bundle.")
    other_citations: int = Field(description="Its citations under the other bundle.")
    q: float = Field(
        description="How likely so uneven a gain and loss would be if either were as likely (exact sign test, corrected for the number of sources)."
    )


class ComparisonSummary(Frozen):
    """What changed between two bundles over all outputs that both have answered for."""

    outputs: int = Field(description="Outputs that are compared.")
    stayed: int = Field(description="Citations that both bundles give.")
    gone: int = Field(description="Citations that only the first bundle gives.")
    came: int = Field(description="Citations that only the other bundle gives.")
    unmoved: int = Field(description="Outputs whose citations kept all ranks.")
    top_changed: int = Field(description="Outputs with another first citation.")
    source_changed: int = Field(description="Outputs whose first citation comes from another source.")
    mean_moved: float = Field(
        description="Mean share of the citations' strength (1 / rank) that went elsewhere."
    )
    loss_outputs: int = Field(
        description="Outputs whose losses compare: both models cut them into equally many tokens."
    )
    loss_nats: float | None = Field(
        description="Mean loss of these under the first bundle's model, nats per token."
    )
    other_loss_nats: float | None = Field(description="The same under the other bundle's model.")
    support: Items[SupportShift]
    sources: Annotated[tuple[SourceShift, ...], Field(max_length=MOST_SOURCES)]
    num_sources: int = Field(description="Sources with a citation under either bundle; the list ends at 200.")


class BundleComparison(Frozen):
    """Two bundles over the outputs that were audited under both."""

    bundle: str
    other_bundle: str
    model: str = Field(description="The model that the first bundle explains.")
    other_model: str
    same_corpus: bool = Field(description="Whether both explain the same corpus.")
    unanswered: int = Field(
        description="Outputs with an audit under both, at least one of which waits or is worked on; counted up to 10,000."
    )
    progress: int | None = Field(
        description="Outputs that were looked at, while the comparison is being worked out; None when that is done."
    )
    summary: ComparisonSummary | None = Field(description="None until it is worked out for the first time.")
    as_of: datetime | None = Field(description="When the summary was worked out.")


class ComparedOutput(Frozen):
    """One output under two bundles."""

    output_id: int
    audit_id: int
    other_audit_id: int
    flag_reason: str
    #: The first characters of the answer; empty when erased.
    excerpt: str
    stayed: int
    gone: int
    came: int
    moved: float = Field(
        description="Share of the citations' strength (1 / rank) that went elsewhere, 0 to 1."
    )
    top_source: str | None
    other_top_source: str | None
    top_changed: bool = Field(description="Another training example is cited first.")
    loss_nats: float | None
    other_loss_nats: float | None
