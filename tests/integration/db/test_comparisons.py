"""Two bundles over the same outputs: what is compared, what it comes to, and that it is bounded."""

import pytest
from sqlalchemy import select

from db.comparison import comparing, comparison_sums, comparisons
from db.comparison.comparison_sums import Sums
from db.models import Audit, BundleComparisonRow, TrailEvent
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader
from db.remedies import hypotheticals
from db.reviewing import bulk
from db.session import Database
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    audit_row,
    claim,
    draft,
    example,
    record,
    recorded_statements,
    register,
    sha256,
)
from wherefrom.errors import InvalidRecord, InvalidRequest, UnknownBundle
from wherefrom.records import (
    Attribution,
    AuditFilter,
    AuditState,
    ComparedOutput,
    HypotheticalRequest,
    Supported,
    compare,
)

#: The cleaned corpus: without row 0, so that every number is another one.
CLEANED = [example(number - 1, text_sha256=sha256(str(number))) for number in range(1, 5)]


def by_content(*numbers: int) -> Attribution:
    """An answer over the cleaned corpus that cites the rows with the contents of these rows of the first."""
    drafts = [draft(rank, CLEANED[number - 1]) for rank, number in enumerate(numbers, start=1)]
    return attribution(*drafts, conformal_p=0.01, loss_nats=2.0)


def by_number(*numbers: int, **fields: object) -> Attribution:
    """An answer over the first corpus."""
    drafts = [draft(rank, example(number)) for rank, number in enumerate(numbers, start=1)]
    return attribution(*drafts, **fields)


def answer(db: Database, bundle_id: int, *answers: Attribution, state: AuditState = AuditState.DONE) -> None:
    """Answer what is pending under a bundle."""
    taken = claim(db, bundle_id, limit=len(answers)).audits
    AuditQueue(db).finish(
        [Finished(one, found, 0.1, state=state) for one, found in zip(taken, answers, strict=True)]  # type: ignore[arg-type]  # done or abstained
    )


@pytest.fixture
def cleaned(db: Database, bundle_id: int) -> int:
    """The bundle of the next model, trained on the cleaned corpus."""
    return register(
        db,
        "cleaned",
        model="support-8",
        weights_sha256=sha256("new weights"),
        corpus_sha256=sha256("cleaned"),
        corpus_examples=4,
        examples=CLEANED,
    )


def asked_again(db: Database, bundle_id: int) -> None:
    """Ask everything again under a bundle."""
    assert bulk.reaudit(db, AuditFilter(), bundle_id).left == 0


def test_the_next_model_is_met(db: Database, bundle_id: int, cleaned: int) -> None:
    """Rows are matched by content; the summary says what stayed, whose blame moved, support and losses."""
    answered(db, bundle_id, record(1), answer=by_number(0, 1, 2))
    answered(db, bundle_id, record(2), answer=by_number(3, 4))
    accept(db, record(3))
    asked_again(db, cleaned)
    before = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert (before.unanswered, before.progress, before.same_corpus) == (4, None, False)
    assert (before.model, before.other_model) == ("support-7", "support-8")
    assert before.summary is not None
    assert before.summary.outputs == 0
    answer(db, cleaned, by_content(1, 2), by_content(3, 4), by_content(1))
    found = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert found.summary is not None
    assert (found.progress, found.unanswered) == (None, 1)
    total = found.summary
    assert (total.outputs, total.stayed, total.gone, total.came, total.unmoved) == (2, 4, 1, 0, 1)
    assert (total.top_changed, total.source_changed) == (1, 1)
    assert (total.loss_outputs, total.loss_nats, total.other_loss_nats) == (2, 1.25, 2.0)
    assert [(one.before, one.after, one.outputs) for one in total.support] == [
        (Supported.UNCALIBRATED, Supported.SUPPORTED, 2)
    ]
    # `source-0` taught row 0, which is gone; its row 3 is row 2 of the cleaned corpus, whose source is kept by number there.
    shifts = {one.source: (one.first, one.other_first, one.gained, one.lost) for one in total.sources}
    assert sum(first for first, *_ in shifts.values()) == 2
    assert sum(other for _, other, *_ in shifts.values()) == 2
    assert all(one.q == 1 for one in total.sources)
    [first, second] = comparisons.compared_outputs(db, "bundle-a", "cleaned").items
    assert (first.stayed, first.gone, first.came, first.top_changed) == (2, 1, 0, True)
    assert (second.moved, second.stayed) == (0, 2)
    assert first.moved > second.moved
    pair = compare(reader.get_audit(db, first.audit_id), reader.get_audit(db, first.other_audit_id))
    assert [(one.rank, one.other_rank) for one in pair.citations] == [(1, None), (2, 1), (3, 2)]
    assert pair.citations[1].training_example_id != pair.citations[1].other_training_example_id


def test_what_is_answered_again_is_compared_again(db: Database, bundle_id: int, cleaned: int) -> None:
    """An audit that goes back to the queue leaves the comparison until it has its new answer."""
    answered(db, bundle_id, record(1), answer=by_number(1, 2))
    asked_again(db, cleaned)
    answer(db, cleaned, by_content(1, 2), state=AuditState.ABSTAINED)

    def totals() -> tuple[int, ...]:
        found = comparisons.compare_bundles(db, "bundle-a", "cleaned").summary
        assert found is not None
        return found.outputs, found.stayed, found.came

    assert totals() == (1, 2, 0)
    assert bulk.requeue(db, AuditFilter(state=AuditState.ABSTAINED)).changed == 1
    assert totals() == (0, 0, 0)
    answer(db, cleaned, by_content(1, 3, 4))
    assert totals() == (1, 1, 2)


def test_a_large_comparison_is_left_to_the_sweeper(
    db: Database, bundle_id: int, cleaned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page of its audits; whoever looks waits for none of it, and sees how far it is."""
    monkeypatch.setattr(comparing, "STEP", 2)
    monkeypatch.setattr(comparisons, "SMALL", 2)
    monkeypatch.setattr(comparisons, "ROUND_S", 60.0)  # a busy machine may stall for a whole round
    answered(db, bundle_id, *(record(number) for number in range(9)), answer=by_number(1, 2))
    asked_again(db, cleaned)
    answer(db, cleaned, *[by_content(1, 2)] * 9)
    first = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert (first.progress, first.summary) == (4, None), "two steps, and one look"
    again = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert (again.progress, again.summary) == (4, None)
    assert comparisons.refresh(db) == 1
    done = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert done.progress is None
    assert done.summary is not None
    assert done.summary.outputs == 9
    with recorded_statements() as statements:
        assert comparisons.refresh(db) == 0
    assert len(statements) == 1, "nothing is wanted"
    answered(db, bundle_id, record(10))
    with recorded_statements() as statements:
        stale = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert stale.summary == done.summary, "what is known is shown with its age"
    assert stale.progress == 0
    assert not any("citation" in one for one in statements)
    assert comparisons.refresh(db) == 1


def test_outputs_are_summed_up_a_part_at_a_time(
    db: Database, bundle_id: int, cleaned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps that each end soon; parts come to the same as the whole, and sums that another look left are not gone on with."""
    for number in range(5):
        answered(db, bundle_id, record(number), answer=by_number(*range(number % 3 + 1)))
    asked_again(db, cleaned)
    answer(db, cleaned, *(by_content(*range(1, number + 2)) for number in (0, 1, 2, 1, 0)))
    whole = comparisons.compare_bundles(db, "bundle-a", "cleaned").summary
    monkeypatch.setattr(comparison_sums, "PART", 2)
    answered(db, bundle_id, record(9))  # the look is stale
    monkeypatch.setattr(comparisons, "SMALL", 0)
    comparisons.compare_bundles(db, "bundle-a", "cleaned")
    with db.writing() as session:
        row = session.scalars(select(BundleComparisonRow)).one()
        row.sums, row.summed_to = Sums(event=row.pass_event + 1, totals={"outputs": 99}).model_dump(), 3
        number = row.id
    steps = []
    while not comparing.step(db, number):
        with db.reading() as session:
            steps.append(session.get_one(BundleComparisonRow, number).summed_to)
    assert len(steps) == 2, "two parts of two; the last one ended it"
    done = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert done.summary == whole
    assert (done.progress, whole is not None and whole.outputs) == (None, 5)


def test_a_read_leaves_a_comparison_as_it_is(
    db: Database, bundle_id: int, cleaned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page shows texts, which the trail tells; it would never be at its end if that made it look again."""
    monkeypatch.setattr(comparisons, "SMALL", 0)
    answered(db, bundle_id, record(1), answer=by_number(1, 2))
    asked_again(db, cleaned)
    answer(db, cleaned, by_content(1, 2))
    comparisons.compare_bundles(db, "bundle-a", "cleaned")
    comparisons.refresh(db)
    done = comparisons.compare_bundles(db, "bundle-a", "cleaned")
    assert done.progress is None
    with db.writing() as session:
        session.add(TrailEvent(kind="text.read", subject="audits", payload={}, journal_id="line-1"))
    assert comparisons.compare_bundles(db, "bundle-a", "cleaned") == done
    assert comparisons.refresh(db) == 0


def test_two_that_go_on_at_once_do_no_harm(
    db: Database, bundle_id: int, cleaned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was slower writes nothing."""
    answered(db, bundle_id, record(1), answer=by_number(1, 2))
    asked_again(db, cleaned)
    answer(db, cleaned, by_content(1, 2))
    comparisons.compare_bundles(db, "bundle-a", "cleaned")
    with db.reading() as session:
        row = session.scalars(select(BundleComparisonRow)).one()
        found = session.execute(comparing._walk(row)).all()
    stale = BundleComparisonRow(
        id=row.id, next_at=row.computed_at, next_audit=7, newest_event=row.newest_event, seen=0
    )
    with recorded_statements() as statements:
        assert not comparing._write(db, stale, found, [{"flagged_output_id": 1}], pass_event=0)
        stale.pass_event, stale.summed_to, stale.sums = row.pass_event, 3, Sums(event=0).model_dump()
        assert not comparing._sum_up(db, stale), "it ended nothing"
    assert sum("UPDATE" in one for one in statements) == 2
    monkeypatch.setattr(comparing, "_write", lambda *_, **__: False)
    assert not comparing.step(db, row.id)
    with db.reading() as session:
        assert session.get_one(BundleComparisonRow, row.id).sums is None, "the faster one sums up"


def test_pages_are_keyset_pages_and_cost_the_same(db: Database, bundle_id: int, cleaned: int) -> None:
    """The largest change first, ties by the output; the number of statements does not depend on how much there is."""
    counted = set()
    for numbers in (range(2), range(2, 7)):
        answered(db, bundle_id, *(record(number) for number in numbers), answer=by_number(1, 2))
        asked_again(db, cleaned)
        answer(db, cleaned, *(by_content(*((1, 2) if number % 2 else (3,))) for number in numbers))
        comparisons.compare_bundles(db, "bundle-a", "cleaned")
        with recorded_statements() as statements:
            comparisons.compare_bundles(db, "bundle-a", "cleaned")
            comparisons.compared_outputs(db, "bundle-a", "cleaned", limit=3)
        counted.add(len(statements))
    assert counted == {6}
    whole = comparisons.compared_outputs(db, "bundle-a", "cleaned", limit=50).items
    assert [one.moved for one in whole] == sorted((one.moved for one in whole), reverse=True)
    seen: list[ComparedOutput] = []
    cursor = None
    while True:
        page = comparisons.compared_outputs(db, "bundle-a", "cleaned", cursor=cursor, limit=2)
        seen += page.items
        cursor = page.next_cursor
        if cursor is None:
            break
    assert tuple(seen) == whole
    with pytest.raises(InvalidRecord):
        comparisons.compared_outputs(db, "bundle-a", "cleaned", cursor="x")


def test_what_cannot_be_compared(db: Database, bundle_id: int, cleaned: int) -> None:
    """Unknown bundles and one with itself; a hypothetical and its output are no pair."""
    with pytest.raises(UnknownBundle, match="'nothing'"):
        comparisons.compare_bundles(db, "bundle-a", "nothing")
    with pytest.raises(InvalidRequest):
        comparisons.compared_outputs(db, "cleaned", "cleaned")
    (audit_id,) = answered(db, bundle_id, record(1))
    hypotheticals.suppose(db, audit_id, HypotheticalRequest(completion="No."), producer="local")
    asked_again(db, cleaned)
    with db.reading() as session:
        assert len(session.scalars(select(Audit.id).where(Audit.bundle_id == cleaned)).all()) == 1


def test_a_whole_filter_is_audited_again(db: Database, bundle_id: int, cleaned: int) -> None:
    """Each output once, also under the bundle of another model, whose tokens are its own; what is there already stays."""
    answered(db, bundle_id, record(1, token_ids=(1, 2)), record(2, reason="other"))
    accept(db, record(3, model="unknown"))
    filters = AuditFilter(flag_reason="policy")
    assert bulk.preview(db, filters, under=cleaned).reauditable == 1
    assert bulk.preview(db, filters).reauditable is None
    assert bulk.reaudit(db, filters, cleaned).changed == 1
    assert bulk.preview(db, filters, under=cleaned).reauditable == 0
    assert bulk.reaudit(db, filters, cleaned).changed == 0
    (claimed,) = claim(db, cleaned).audits
    assert claimed.record.token_ids is None
    assert claimed.record.model == "support-7"
    assert audit_row(db, claimed.audit_id).bundle_id == cleaned
    assert bulk.reaudit(db, AuditFilter(), cleaned).changed == 1
    assert reader.get_audit(db, 1).other_audit_id == claimed.audit_id
    with pytest.raises(UnknownBundle):
        bulk.reaudit(db, AuditFilter(), 4711)


def test_token_ids_stay_under_a_bundle_of_the_same_model(db: Database, bundle_id: int) -> None:
    """They are the model's own."""
    second = register(db, "bundle-b", form="activation", activate=False)
    answered(db, bundle_id, record(1, token_ids=(1, 2)))
    asked_again(db, second)
    (claimed,) = claim(db, second).audits
    assert claimed.record.token_ids == (1, 2)


def test_a_press_takes_a_bounded_number(
    db: Database, bundle_id: int, cleaned: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In transactions of a bounded size; the answer says what is left."""
    monkeypatch.setattr(bulk, "MOST", 3)
    answered(db, bundle_id, *(record(number) for number in range(5)))
    first = bulk.reaudit(db, AuditFilter(), cleaned)
    assert (first.changed, first.left) == (3, 2)
    assert bulk.reaudit(db, AuditFilter(), cleaned).left == 0
