"""The page of a blind queue: an output, training examples in a fixed random order, and four keys. Nothing that was computed is on it."""

from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import HTMLResponse

from db.reviewing import blind
from web.asking.review_forms import person_id_of
from web.asking.reviewed import given_blind
from web.desk.audit_pages import Work
from web.drawing import evidence
from web.drawing.evidence import Segment
from web.drawing.render import render
from web.guard.caller import Caller
from web.services import Services
from wherefrom.records import Verdict


@dataclass(frozen=True)
class RowView:
    """One training example to be judged."""

    training_example_id: int
    prompt: tuple[Segment, ...]
    completion: tuple[Segment, ...]
    #: The reader's verdict; None where it is still to be given.
    mine: Verdict | None
    #: Entry of the verdict, for taking it back.
    review_id: int | None


def blind_page(request: Request, services: Services, work: Work, *, caller: Caller) -> HTMLResponse:
    """The output and its rows, with the verdicts that the reader has given."""
    item = blind.blind_item(services.database, work.item.item_id)
    given = given_blind(services, work.item.item_id, person_id_of(caller))
    rows = [
        RowView(
            training_example_id=row.training_example_id,
            prompt=tuple(evidence.plain_segments(row.prompt)),
            completion=tuple(evidence.plain_segments(row.completion)),
            mine=None if (one := given.get(row.training_example_id)) is None else one.verdict,
            review_id=None if one is None else one.review_id,
        )
        for row in item.rows
    ]
    _, turns = evidence.turn_views(item.turns)
    return render(
        "blind.html",
        request,
        work=work,
        turns=turns,
        completion=evidence.plain_segments(item.completion),
        rows=rows,
        left=sum(row.mine is None for row in rows),
        first_open=next((place for place, row in enumerate(rows) if row.mine is None), None),
        verdicts=list(Verdict),
    )
