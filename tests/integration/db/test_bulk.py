"""What a bulk action would change, before anybody presses: counted up to a bound, on both engines."""

import pytest

from db.access import people
from db.reviewing import bulk, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from tests.integration.db.builders import accept, answered, record
from wherefrom.records import AuditFilter, ReviewDraft, Verdict, Via


def test_a_preview_tells_what_is_left_to_judge(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than the bound means that there are more; what somebody judged outside of those that were looked at first does not hide the rest."""
    ann = Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    audits = answered(db, bundle_id, *(record(number) for number in range(5)))
    accept(db, record(9))
    for audit_id in (audits[1], audits[3]):
        reviews.judge(db, audit_id, ReviewDraft(verdict=Verdict.UNRELATED), by=ann)
    reviews.judge(db, audits[0], ReviewDraft(verdict=Verdict.UNRELATED, rank=1), by=ann)
    for most, answered_ones, unjudged in ((2, 3, 3), (3, 4, 3), (4, 5, 3), (5, 5, 3)):
        monkeypatch.setattr(bulk, "PREVIEWED", most)
        found = bulk.preview(db, AuditFilter(), person_id=ann.person.person_id)
        assert (found.answered, found.unjudged, found.requeuable) == (answered_ones, unjudged, 0), most
