"""Who holds a row of a queue: the fencing token of audits and measurements."""

from wherefrom.records.flagged import Frozen


class Lease(Frozen):
    """What a claimer must still hold for anything of it to be written: the row, under the attempt that it claimed."""

    id: int
    attempt: int
    owner: str
    #: Attempts that counted against the limit before this claim.
    spent: int = 0
