"""The reverse question: training examples and sources, and the flagged outputs that name them."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from wherefrom.records.bounds import MAX_ITEMS, Items
from wherefrom.records.flagged import Frozen

#: Newest audits of a selection over which culprits are ranked.
CULPRIT_AUDITS = 10_000


class Culprit(Frozen):
    """One training example, ranked by how strongly a selection of audits names it."""

    training_example_id: int
    example_id: str
    source: str
    prompt: str
    completion: str
    outputs: int = Field(description="Audits of the selection that cite it.")
    first_citations: int = Field(description="Audits in which it is the first citation.")
    strength: float = Field(
        description="Sum over its citations of 1 / rank: a first place counts 1, a second 1/2. Scores of different audits cannot be added; places can."
    )
    mean_influence: float | None = Field(description="Mean influence score of these citations.")
    measured_nats: float | None = Field(
        description="Largest measured effect among them; null where none was measured."
    )
    confirmed: int = Field(description="Verdicts that stand and call it a confirmed cause, of any audit.")
    unrelated: int = Field(description="Verdicts that stand and call it unrelated.")


class Culprits(Frozen):
    """The culprits of a selection, strongest first."""

    items: Items[Culprit]
    audits: int = Field(description="Answered audits that were looked at: the newest of the selection.")
    more: bool = Field(description="The selection has further audits, which did not count.")


class SourceBlame(Frozen):
    """Whether a source is the first citation more often than its size explains."""

    source: str
    examples: int = Field(description="Training examples of it that are stored.")
    citations: int | None = Field(
        default=None, description="Citations of its examples; opponents do not count."
    )
    first_citations: int = Field(description="Audits whose first citation comes from it.")
    audits: int = Field(
        description="Answered audits over the corpora that hold it, those of groups left out."
    )
    share: float | None = Field(
        description="Its mean share of these corpora; null where a corpus is not stored whole, so that shares are unknown."
    )
    expected: float | None = Field(description="First citations that its share alone explains.")
    p: float | None = Field(
        description="One-sided exact binomial p-value of so many first citations, had every example the same chance."
    )
    q: float | None = Field(description="The same, corrected for the number of sources (Benjamini-Hochberg).")


class BlamePeriod(Frozen):
    """A stretch of time in the blame of one source."""

    start: datetime
    end: datetime
    audits: int = Field(description="Answered audits that were received in it.")
    first_citations: int = Field(description="Those whose first citation comes from the source.")


class SourceDetail(Frozen):
    """One source: how often it is blamed, when, and by which of its examples."""

    blame: SourceBlame
    over_time: Items[BlamePeriod]
    worst: Culprits
    verdicts: Annotated[dict[str, int], Field(max_length=MAX_ITEMS)] = Field(
        description="Verdicts on citations of it that stand, by verdict; a person's verdict on a citation counts once."
    )
    as_of: datetime | None = Field(
        default=None,
        description="When it was counted, in a large database; null: now. Its worst examples and verdicts are always of now.",
    )


class FoundExample(Frozen):
    """A training example that a search in training texts found."""

    training_example_id: int
    example_id: str
    source: str
    prompt: str
    completion: str
    outputs: int = Field(description="Audits that cite it.")
