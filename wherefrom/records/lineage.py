"""Where a citation came from: what it was computed with, and what came out when it was computed again."""

import re
from enum import StrEnum
from typing import Self

from wherefrom.errors import InvalidRequest
from wherefrom.records.bounds import Details, Items
from wherefrom.records.flagged import Frozen

#: `17`, `17/2`, `17/-1`, and the address that a page shows: `.../audits/17#citation-2`.
_ADDRESS = re.compile(
    r"(?:https?://\S*/audits/|/?audits/)?(\d{1,18})/?(?:\?[^#\s]*)?(?:[/#](?:citation-)?(-?\d{1,6}))?"
)


class Reproduced(StrEnum):
    """What came out when a citation was computed again."""

    SAME = "same"
    DIFFERENT = "different"
    ERASED = "erased"


class CitationAddress(Frozen):
    """One citation of one audit."""

    audit_id: int
    #: 1, 2, ... for citations, -1, -2, ... for opponents.
    rank: int = 1

    @classmethod
    def parse(cls, text: str) -> Self:
        """The citation that a person names.

        Raises:
            InvalidRequest: it is neither the number of an audit, with a rank behind a slash or without, nor the address of a citation.
        """
        found = _ADDRESS.fullmatch(text.strip())
        rank = 1 if found is None or found[2] is None else int(found[2])
        if found is None or rank == 0:
            raise InvalidRequest(
                f"{text[:200]!r} names no citation; give AUDIT/RANK, such as 17/1, or the address of a citation, such as http://host/audits/17#citation-1"
            )
        return cls(audit_id=int(found[1]), rank=rank)

    def __str__(self) -> str:
        """As it is given on a command line."""
        return f"{self.audit_id}/{self.rank}"


class ComparedScore(Frozen):
    """One score of a citation, as it was stored and as it came out now."""

    name: str
    stored: float
    #: None where the citation does not come out any more.
    now: float | None
    #: How far the two may lie apart.
    allowed: float

    @property
    def differs(self) -> bool:
        """Whether they lie farther apart."""
        return self.now is None or abs(self.now - self.stored) > self.allowed


class Reproduction(Frozen):
    """A citation that was computed again from the bundle that it names."""

    audit_id: int
    rank: int
    example_id: str
    verdict: Reproduced
    #: The verdict in words, with its reason.
    text: str
    #: Its rank now; None where it does not come out, or nothing was computed.
    rank_now: int | None = None
    scores: Items[ComparedScore] = ()
    bundle: str
    #: What the audit was computed with; None where an earlier release answered it.
    computed_with: Details | None = None
    #: What it was computed with now; None where nothing was computed.
    computing_with: Details | None = None
    #: What of it is another version or setting than then, in words.
    other: Items[str] = ()
