"""What an audit found, in words; `plain_sentence` makes it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from wherefrom.records.bounds import MAX_ITEMS
from wherefrom.records.flagged import Frozen


class Strength(StrEnum):
    """How much stands behind an audit, strongest first."""

    #: The model was trained again without an example, and the output became less likely.
    MEASURED = "measured"
    #: Calibrated, supported, and confident of single examples.
    STRONG = "strong"
    #: Calibrated and supported as a whole, but no single example is likely, or the bundle states no confidence.
    SUPPORTED = "supported"
    #: Something speaks against being sure; the reason is told.
    WEAK = "weak"
    #: The engine abstains, or cites nothing.
    NOT_SUPPORTED = "not_supported"
    #: Nobody knows how often such citations are right.
    NOT_CALIBRATED = "not_calibrated"

    @property
    def label(self) -> str:
        """The strength in the words of the pages."""
        return self.value.replace("_", " ")


class Conclusion(Frozen):
    """The sentence, and why it is no surer."""

    strength: Strength
    text: str
    because: str
    #: Ranks of the citations that the sentence speaks of.
    ranks: Annotated[tuple[int, ...], Field(max_length=MAX_ITEMS)] = ()
