"""What somebody supposes is audited like any output and counts nowhere, on both engines."""

import pytest
from sqlalchemy import delete, text

from db.access import people
from db.bundles import catalogue
from db.models import FlaggedText
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import blame, culprits, listings, reader, source_facts, support
from db.remedies import hypotheticals
from db.reviewing import review_queues, reviews
from db.session import Database
from db.storing import groups
from db.storing.groups import AskedGroup
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    claim_one,
    draft,
    example,
    expire_leases,
    five_citations,
    record,
    register,
    sha256,
)
from wherefrom.errors import InvalidRequest, NotFound
from wherefrom.records import (
    AuditFilter,
    AuditState,
    HypotheticalRequest,
    QueueDraft,
    ReviewDraft,
    Span,
    Verdict,
    Via,
    compare,
)

OTHER = HypotheticalRequest(completion="No refund.")


def supposed(db: Database, bundle_id: int, asked: HypotheticalRequest = OTHER) -> int:
    """An audit that is answered with other citations, in place of audit 1."""
    found = hypotheticals.suppose(db, 1, asked, producer="local")
    answer = attribution(draft(1, example(1)), draft(2, example(4)), conformal_p=0.01)
    AuditQueue(db).finish([Finished(claim_one(db, bundle_id), answer, 0.5)])
    assert found.audit_id is not None
    return found.audit_id


def test_it_is_claimed_with_what_was_changed(db: Database, bundle_id: int) -> None:
    """The prompt stays; spans and token ids of the flagged answer go with it, but not where only an acceptable answer is given."""
    answered(db, bundle_id, record(1, spans=(Span(start=0, end=3),), token_ids=(1, 2), labels={"team": "a"}))
    hypotheticals.suppose(db, 1, OTHER, producer="local")
    claimed = claim_one(db, bundle_id)
    assert claimed.hypothetical
    assert (claimed.record.prompt, claimed.record.completion) == ("Question 1?", "No refund.")
    assert (claimed.record.spans, claimed.record.token_ids, claimed.record.labels) == (
        (),
        None,
        {"team": "a"},
    )
    hypotheticals.suppose(db, 1, HypotheticalRequest(preferred="Perhaps."), producer="local")
    claimed = claim_one(db, bundle_id)
    assert (claimed.record.completion, claimed.record.preferred) == ("Answer 1.", "Perhaps.")
    assert claimed.record.spans == (Span(start=0, end=3),)


def test_it_counts_nowhere(db: Database, bundle_id: int) -> None:
    """Lists, counts, support, queues, sources, examples and views are the same before and after."""

    def counted() -> list[object]:
        queue = review_queues.create_queue(
            db, QueueDraft(name=f"q{len(seen)}", rule=AuditFilter()), created_by=None
        )
        with db.reading() as session:
            views = [
                session.scalar(text(f"SELECT COUNT(*) FROM {view}")) for view in ("v_audits", "v_citations")
            ]
        facts = listings.facts(db, AuditFilter())
        return [
            [one.audit_id for one in reader.list_audits(db, AuditFilter()).items],
            [one.audit_id for one in reader.list_audits(db, AuditFilter(text="refund")).items],
            facts and facts.matching,
            support.judge(db, AuditFilter(), 0.1),
            reader.queue_health(db).states,
            review_queues.fill(db, queue),
            reader.sources(db),
            [reader.get_example(db, number).citations for number in range(1, 6)],
            [one.audit.audit_id for one in reader.cited_by(db, 2).items],
            views,
            source_facts.source_detail(db, "source-1"),
            culprits.culprits(db, AuditFilter()),
        ]

    seen: list[object] = []
    answered(db, bundle_id, record(1))
    seen.append(counted())
    number = supposed(db, bundle_id)
    assert counted() == seen[0]
    assert reader.get_audit(db, number).audit.state is AuditState.DONE


def test_a_supposed_audit_is_in_no_count_of_what_waits(db: Database, bundle_id: int) -> None:
    """Nor in the age of the oldest; who watches over workers still sees that one is at work."""
    answered(db, bundle_id, record(1))
    hypotheticals.suppose(db, 1, OTHER, producer="local")
    assert reader.queue_health(db).oldest_pending_seconds is None
    assert not reader.is_worked_on(db)
    claim_one(db, bundle_id)
    assert reader.queue_health(db).states == {state: int(state is AuditState.DONE) for state in AuditState}
    assert reader.is_worked_on(db)
    expire_leases(db)
    assert not reader.is_worked_on(db)


def test_what_only_a_supposed_audit_cites_is_no_example_of_its_source(db: Database) -> None:
    """The database holds the cited examples of a large corpus, and a source's size there is what real audits cite."""
    large = register(
        db,
        "large",
        corpus_examples=catalogue.STORED_CORPUS_LIMIT + 1,
        corpus_sha256=sha256("large"),
        examples=[],
    )
    answered(db, large, record(1), answer=attribution(draft(1, example(1)), draft(2, example(2))))

    def sizes() -> object:
        return (
            {one.source: one.examples for one in reader.sources(db)},
            {one.source: one.examples for one in blame.blame(db)},
        )

    before = sizes()
    supposed(db, large)
    assert sizes() == before == ({"source-1": 1, "source-2": 1}, {"source-1": 1, "source-2": 1})
    answered(db, large, record(2), answer=attribution(draft(1, example(4))))
    assert sizes() == ({"source-1": 2, "source-2": 1}, {"source-1": 2, "source-2": 1})


def test_both_stand_side_by_side(db: Database, bundle_id: int) -> None:
    """Each leads to the other, and the comparison says what stayed, is gone, and came."""
    answered(db, bundle_id, record(1), answer=five_citations())
    number = supposed(db, bundle_id)
    other = reader.get_audit(db, number)
    assert (other.hypothetical_of, reader.get_audit(db, 1).hypothetical_of) == (1, None)
    assert [one.audit_id for one in hypotheticals.hypotheticals_of(db, 1)] == [number]
    assert [one.audit_id for one in hypotheticals.hypotheticals_of(db, number)] == [number]
    found = compare(reader.get_audit(db, 1), other)
    assert [(one.rank, one.other_rank, one.change) for one in found.citations] == [
        (1, None, "gone"), (2, 1, "stayed"), (3, None, "gone"), (4, None, "gone"), (None, 2, "came"),
    ]  # fmt: skip
    with db.reading() as session:
        row = session.execute(text("SELECT audit_id, completion, asked_by FROM v_hypotheticals")).one()
    assert tuple(row) == (number, "No refund.", "local")


def test_the_same_again_is_the_same(db: Database, bundle_id: int) -> None:
    """Also in place of a hypothetical, which stands in place of the flagged output."""
    answered(db, bundle_id, record(1))
    first = hypotheticals.suppose(db, 1, OTHER, producer="local")
    again = hypotheticals.suppose(db, 1, OTHER, producer="local")
    assert (first.status, again.status, again.audit_id) == ("accepted", "duplicate", first.audit_id)
    assert first.audit_id is not None
    further = hypotheticals.suppose(
        db, first.audit_id, HypotheticalRequest(completion="Never."), producer="local"
    )
    assert further.audit_id is not None
    assert reader.get_audit(db, further.audit_id).hypothetical_of == 1


def test_what_cannot_be_supposed(db: Database, bundle_id: int) -> None:
    """Nothing that differs, a group, an erased text, no audit."""
    accept(db, record(1), record(2))
    with pytest.raises(InvalidRequest, match="nothing differs"):
        hypotheticals.suppose(db, 1, HypotheticalRequest(completion=" Answer 1. "), producer="local")
    group = groups.ask_group(db, AskedGroup((1, 2)), producer="local").audit_id
    assert group is not None
    with pytest.raises(InvalidRequest, match="group"):
        hypotheticals.suppose(db, group, OTHER, producer="local")
    with db.writing() as session:
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == 1))
    with pytest.raises(InvalidRequest, match="erased"):
        hypotheticals.suppose(db, 1, OTHER, producer="local")
    with pytest.raises(NotFound):
        hypotheticals.suppose(db, 99, OTHER, producer="local")
    with pytest.raises(NotFound):
        hypotheticals.hypotheticals_of(db, 99)


def test_it_takes_comments_and_no_verdicts(db: Database, bundle_id: int) -> None:
    """Verdicts count what was said; nobody said this."""
    answered(db, bundle_id, record(1))
    number = supposed(db, bundle_id)
    ann = reviews.Reviewer(people.choose_local(db, "ann").ref, Via.LOCAL)
    with pytest.raises(InvalidRequest, match="never given"):
        reviews.judge(db, number, ReviewDraft(verdict=Verdict.CONFIRMED), by=ann)
    assert reviews.judge(db, number, ReviewDraft(comment="Why not?"), by=ann).comment == "Why not?"
    assert reviews.judge(db, 1, ReviewDraft(verdict=Verdict.CONFIRMED), by=ann).verdict is Verdict.CONFIRMED
