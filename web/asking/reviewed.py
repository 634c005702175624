"""What the page of an audit says about the verdicts of people: mine, everybody's, the whole history. No SQL, no HTML."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from db.access.keys import Scope
from db.reviewing import reviews
from web.guard.caller import Caller
from web.services import Services
from wherefrom.records import AuditDetail, ReviewRecord, Verdict


@dataclass(frozen=True)
class Entry:
    """One line of the history."""

    record: ReviewRecord
    #: What it is about, in words.
    target: str
    #: The words that the comment is about; empty where it names none, or where they were erased.
    quote: str
    #: Whether the reader gave it and can take it back.
    mine: bool


@dataclass(frozen=True)
class FoundView:
    """The verdicts on an audit and on its citations; targets are ids of training examples, None for the audit."""

    can_judge: bool
    mine: dict[int | None, Verdict]
    standing: dict[int | None, list[ReviewRecord]]
    history: list[Entry]
    #: The page that a form leads back to.
    page: str
    verdicts: tuple[Verdict, ...] = tuple(Verdict)


def found_view(
    records: Sequence[ReviewRecord], detail: AuditDetail, *, caller: Caller, page: str
) -> FoundView:
    """What the page shows of an audit's reviews."""
    me = None if caller.person is None else caller.person.person_id
    standing: dict[int | None, list[ReviewRecord]] = defaultdict(list)
    for one in records:
        if one.stands and not (one.blind and one.rank is None):
            standing[one.training_example_id].append(one)
    mine = {
        target: one.verdict
        for target, found in standing.items()
        for one in found
        if me is not None and one.reviewer_id == me and not one.blind and one.verdict is not None
    }
    texts = {one.training_example_id: one.completion for one in (*detail.citations, *detail.opponents)}
    return FoundView(
        can_judge=caller.may(Scope.REVIEW)
        and not detail.audit.state.is_open
        and detail.hypothetical_of is None,
        mine=mine,
        standing=defaultdict(list, standing),
        history=[_entry(one, detail.completion, texts, me) for one in reversed(records)],
        page=page,
    )


def _entry(one: ReviewRecord, output: str, texts: dict[int, str], me: int | None) -> Entry:
    whole = (
        output
        if one.range is None or one.range.part == "output"
        else texts.get(one.training_example_id or 0, "")
    )
    quote = "" if one.range is None else whole[one.range.start : one.range.end]
    takes_back = me is not None and one.reviewer_id == me and not one.undone and one.undoes_id is None
    return Entry(one, _target(one), quote, takes_back)


def _target(one: ReviewRecord) -> str:
    if one.rank is not None:
        return f"citation {one.rank}" if one.rank > 0 else f"opponent {one.rank}"
    return "the audit" if one.training_example_id is None else "an example that was mixed in"


def given_blind(services: Services, item_id: int, person_id: int | None) -> dict[int | None, ReviewRecord]:
    """The blind verdicts of somebody that stand, by training example; empty where nobody stands behind the request."""
    if person_id is None:
        return {}
    mine = reviews.reviews_of_item(services.database, item_id, person_id)
    return {one.training_example_id: one for one in mine if one.stands and one.blind}
