"""What-ifs on both engines: asked of a list as it is, worked off a few outputs at a time under a lease, fenced, and read."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import delete, text

from db.access import people
from db.models import FlaggedText
from db.queues import what_if_queue
from db.queues.what_if_queue import WhatIfQueue
from db.remedies import fix_lists, fix_rows, what_ifs
from db.reviewing.reviews import Reviewer
from db.session import Database
from tasks.what_if import work_what_if
from tests.integration.db.builders import answered, attribution, draft, example, record
from tests.overlap_engine import OverlapAttributor
from wherefrom.errors import EmptyCompletion, InvalidRequest, NotFound
from wherefrom.metrics import Metrics
from wherefrom.records import AuditFilter, FixChange, FixListDraft, ListScore, MeasurementState, Via
from wherefrom.settings import Settings


class ListEngine(OverlapAttributor):
    """Scores a list by its length and the output's number; refuses what it is told to."""

    def __init__(self, refuses: str = "") -> None:
        super().__init__("bundle-a", [example(0)])
        self.asked: list[tuple[int, ...]] = []
        self._refuses = refuses

    def prepare(self, query: Any, **options: Any) -> Any:
        """As the overlap engine, but for one output."""
        if query.key == self._refuses:
            raise EmptyCompletion("nothing to explain")
        return super().prepare(query, **options)

    def score_list(self, prepared: Any, rows: Any) -> list[ListScore]:
        """One score per output."""
        self.asked.append(tuple(rows))
        return [
            ListScore(key=one.key, score=float(len(rows)), z=float(one.key), chance=0.005, effect_nats=0.1, low_nats=0.0, high_nats=0.2, basis="bank, alpha 0.5")
            for one in prepared
        ]  # fmt: skip


@dataclass
class Runtime:
    """What one worker process holds."""

    what_ifs: WhatIfQueue
    settings: Settings = field(default_factory=Settings)
    metrics: Metrics = field(default_factory=Metrics)
    owner: str = "w1"

    def clock(self) -> float:
        """Stands still."""
        return 0.0

    def is_ending(self) -> bool:
        """Never."""
        return False

    def send_hint(self, bundle_id: int) -> None:
        """Nobody listens."""


@pytest.fixture
def fix_list(db: Database, bundle_id: int) -> int:
    """A list over the corpus of five: two rows leave, one stays."""
    by = Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    number = fix_lists.create_list(db, FixListDraft(name="refunds"), by=by)
    for ids, action in (((2,), "remove"), ((4,), "fix"), ((1,), "keep")):
        fix_rows.change_rows(
            db, number, FixChange.model_validate({"training_example_ids": ids, "action": action}), by=by
        )
    for one in range(1, 4):
        answered(db, bundle_id, record(one), answer=attribution(draft(1, example(0))))
    return number


def ask(db: Database, fix_list: int, **filters: Any) -> int:
    """The number of a what-if."""
    [found] = what_ifs.ask(db, fix_list, AuditFilter(**filters), most=10, by="ann")
    return found.what_if_id


def test_a_list_is_scored_against_outputs_that_do_not_cite_it(
    db: Database, bundle_id: int, fix_list: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows to remove and to fix, as they were when it was asked; a few outputs at a time, without spending attempts."""
    monkeypatch.setattr(what_if_queue, "AT_ONCE", 2)
    number, engine, runtime = ask(db, fix_list), ListEngine(), Runtime(WhatIfQueue(db))
    asked = what_ifs.get_what_if(db, number)
    assert (asked.state, asked.rows, asked.outputs, asked.scored, asked.other_rows) == (
        MeasurementState.PENDING,
        2,
        3,
        0,
        0,
    )
    assert WhatIfQueue(db).pending_counts() == {bundle_id: 1}
    assert work_what_if(bundle_id, engine, runtime) is MeasurementState.PENDING
    assert what_ifs.get_what_if(db, number).scored == 2
    assert work_what_if(bundle_id, engine, runtime) is MeasurementState.DONE
    assert work_what_if(bundle_id, engine, runtime) is None
    assert engine.asked == [(1, 3), (1, 3)]
    done = what_ifs.get_what_if(db, number)
    assert (done.state, done.scored, done.basis) == (MeasurementState.DONE, 3, "bank, alpha 0.5")
    assert [(one.audit_id, one.score, one.z) for one in what_ifs.outputs_of(db, number)] == [
        (3, 2.0, 3.0),
        (2, 2.0, 2.0),
        (1, 2.0, 1.0),
    ]
    assert what_ifs.left_out_ids(db, number) == ["ex-00001", "ex-00003"]
    with db.reading() as session:
        kinds = session.execute(
            text("SELECT kind FROM trail_event WHERE subject = :one ORDER BY id"),
            {"one": f"what_if:{number}"},
        )
        assert list(kinds.scalars()) == ["what_if.requested", "what_if.finished"]
        assert len(session.execute(text("SELECT fix_list, z FROM v_what_if")).all()) == 3


def test_outputs_that_cannot_be_scored_say_so(db: Database, bundle_id: int, fix_list: int) -> None:
    """An erased text and a refused output have codes; the third has its score."""
    number = ask(db, fix_list)
    with db.writing() as session:
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == 2))
    assert work_what_if(bundle_id, ListEngine(refuses="1"), Runtime(WhatIfQueue(db))) is MeasurementState.DONE
    found = {one.audit_id: (one.score, one.code) for one in what_ifs.outputs_of(db, number)}
    assert found == {1: (None, "empty_completion"), 2: (None, "output_erased"), 3: (2.0, None)}


def test_a_worker_that_lost_its_lease_stores_nothing(db: Database, bundle_id: int, fix_list: int) -> None:
    """The fence is the claim's number."""
    number, queue = ask(db, fix_list), WhatIfQueue(db)
    first = queue.claim(bundle_id, owner="w1", lease_s=-1, max_attempts=5)
    second = queue.claim(bundle_id, owner="w2", lease_s=60, max_attempts=5)
    assert first is not None
    assert second is not None
    scores = [ListScore(key=str(audit_id), score=1.0) for audit_id, _ in first.outputs]
    assert queue.store(first, scores, {}) is None
    assert what_ifs.get_what_if(db, number).scored == 0
    assert queue.store(second, scores, {}) is MeasurementState.DONE


def test_an_engine_without_lists_ends_it_with_its_reason(db: Database, bundle_id: int, fix_list: int) -> None:
    """Nobody waits for an answer that never comes."""
    number = ask(db, fix_list)
    assert (
        work_what_if(bundle_id, OverlapAttributor("bundle-a", [example(0)]), Runtime(WhatIfQueue(db)))
        is MeasurementState.DEAD
    )
    ended = what_ifs.get_what_if(db, number)
    assert (ended.state, ended.code) == (MeasurementState.DEAD, "lists_unsupported")


def test_questions_without_an_answer_are_refused(db: Database, bundle_id: int, fix_list: int) -> None:
    """Nothing matches, nothing leaves, there is no such list; nothing is queued."""
    with pytest.raises(InvalidRequest, match="no answered output"):
        ask(db, fix_list, flag_reason="nothing")
    with pytest.raises(NotFound):
        ask(db, 77)
    by = Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    with pytest.raises(InvalidRequest, match="to be removed or fixed"):
        ask(db, fix_lists.create_list(db, FixListDraft(name="empty"), by=by))
    assert WhatIfQueue(db).pending_counts() == {}
