"""What people find about an audit or one of its citations. Nothing here is ever changed: a later row takes an earlier one back."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wherefrom.records.bounds import MAX_MESSAGES, Items
from wherefrom.records.flagged import Frozen, Message, Text, Turn

#: Longest comment, characters.
MAX_COMMENT = 4000


class Verdict(StrEnum):
    """What somebody finds about a citation, or about an audit as a whole."""

    #: This training example, or for an audit its citations, taught the output.
    CONFIRMED = "confirmed"
    PLAUSIBLE = "plausible"
    UNRELATED = "unrelated"
    SECOND_LOOK = "second_look"

    @property
    def label(self) -> str:
        """The verdict in the words of the pages."""
        return _LABELS[self]

    @property
    def decides(self) -> bool:
        """It says something about the cause; asking for a second look does not."""
        return self is not Verdict.SECOND_LOOK


_LABELS = {
    Verdict.CONFIRMED: "Confirmed cause",
    Verdict.PLAUSIBLE: "Plausible",
    Verdict.UNRELATED: "Unrelated",
    Verdict.SECOND_LOOK: "Needs a second look",
}


class TextRange(Frozen):
    """Characters that a comment is about: of the flagged answer, or of the training example's answer."""

    part: Literal["output", "example"] = "output"
    start: int = Field(ge=0)
    end: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end <= self.start:
            raise ValueError("`end` must be behind `start`")
        return self


class ReviewDraft(Frozen):
    """A verdict, a comment, or both."""

    rank: int | None = Field(
        default=None, ge=-1000, le=1000, description="Rank of the citation; without it, the audit as a whole."
    )
    verdict: Verdict | None = Field(default=None, description="What you find.")
    comment: Annotated[Text, Field(max_length=MAX_COMMENT)] = Field(default="", description="Why.")
    quote: Annotated[Text, Field(max_length=MAX_COMMENT)] | None = Field(
        default=None, description="Words that the comment is about; they must stand in the text."
    )
    part: Literal["output", "example"] = Field(
        default="output",
        description="Where `quote` stands: in the flagged answer or in the training example's.",
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.verdict is None and not self.comment.strip():
            raise ValueError("give a verdict or a comment")
        if self.part == "example" and self.rank is None:
            raise ValueError("`part` is `example`, but no citation is named by `rank`")
        return self


class ReviewRecord(Frozen):
    """One entry of the history of an audit's reviews."""

    review_id: int
    audit_id: int
    rank: int | None = Field(
        description="Rank of the citation; None for the audit, and for a training example that was mixed in."
    )
    training_example_id: int | None
    verdict: Verdict | None
    comment: str
    range: TextRange | None
    reviewer: str
    reviewer_id: int | None = Field(
        description="Number of the person; None in rows that were written by SQL."
    )
    proven: bool = Field(
        description="A key or a session with a key says who it was; False for a chosen name."
    )
    blind: bool = Field(description="Given with scores, ranks and confidences hidden.")
    created_at: datetime
    undoes_id: int | None = Field(description="The entry that this one takes back.")
    undone: bool = Field(description="A later entry took it back.")
    stands: bool = Field(description="It is the verdict of its reviewer on this target now.")


class BlindVerdict(Frozen):
    """What one person found about one training example beside an output, without seeing what was computed."""

    example_id: str
    rank: int | None = Field(description="Its rank in the audit; None where it was drawn at random.")
    verdict: Verdict
    reviewer: str
    proven: bool


class JudgedOutput(Frozen):
    """One output with its blind verdicts: a line of the file that `wherefrom calibrate --verdicts` reads."""

    audit_id: int
    bundle: str | None
    model: str
    messages: Annotated[tuple[Turn | Message, ...], Field(max_length=MAX_MESSAGES)]
    plain_prompt: bool = False
    completion: str
    verdicts: Items[BlindVerdict]
