"""Evidence beside the scores is stored and read whole; rows of the release before stay readable."""

import pytest
from sqlalchemy import text

from db import migrate
from db.queues import waiting
from db.reading import reader
from db.session import Database
from db.sql_views.views import VIEWS
from tests.integration.db.builders import answered, attribution, audit_row, draft, example, record, register
from wherefrom.records import AuditFilter, AuditState, EvidenceSpan, ModulePart, Overlap, Span

SPAN = EvidenceSpan(output=Span(start=0, end=4), example=Span(start=1, end=6), share=0.5)
OVERLAP = Overlap(output=Span(start=2, end=9), example=Span(start=0, end=7), tokens=2)
PART = ModulePart(by="block", name="12", influence=0.25, usual_share=0.5)
EVIDENCE = {
    "encoder_score": 0.62,
    "ekfac_score": 0.4,
    "effect_nats": 0.01,
    "effect_basis": "bank of 64",
    "confidence": 0.75,
    "duplicates": 3,
    "sign_determined": False,
    "spans": (SPAN, SPAN),
    "overlaps": (OVERLAP,),
    "modules": (
        PART,
        ModulePart(by="block", name="13", influence=0.0, usual_share=0.5),
        ModulePart(by="linear", name="o_proj", influence=0.25),
    ),
    "carried_by": "mostly block 12 (100 %, usually 50 %), o (100 %)",
}


def test_everything_the_engine_says_is_read_again(db: Database, bundle_id: int) -> None:
    """Spans, overlaps, EK-FAC, duplicates; the p-values stand with the audit, in the list too."""
    with_evidence = draft(1, example(0)).model_copy(update=EVIDENCE)
    noise = {"noise_level": 0.05, "noise_best": 0.12, "weak": True}
    answer = attribution(with_evidence, draft(2, example(1)), conformal_p=0.02, novelty_p=0.7, **noise)
    (audit_id,) = answered(db, bundle_id, record(), answer=answer)
    detail = reader.get_audit(db, audit_id)
    first, second = detail.citations
    assert {name: getattr(first, name) for name in EVIDENCE} == EVIDENCE
    assert second.encoder_score is None
    assert second.sign_determined is None
    assert (detail.noise_level, detail.noise_best, detail.audit.weak) == (0.05, 0.12, True)
    assert (second.ekfac_score, second.duplicates, second.spans, second.overlaps, second.modules) == (
        None,
        0,
        (),
        (),
        (),
    )
    assert (first.measured_effect_nats, first.measured_low_nats, first.measured_high_nats) == (None,) * 3
    assert (detail.audit.conformal_p, detail.audit.novelty_p) == (0.02, 0.7)
    (line,) = reader.list_audits(db, AuditFilter()).items
    assert (line.conformal_p, line.novelty_p, line.weak) == (0.02, 0.7, True)


def test_views_show_the_evidence(db: Database, bundle_id: int) -> None:
    """People with a SQL client see the same."""
    noise = {"noise_level": 0.05, "noise_best": 0.12, "weak": True}
    answer = attribution(draft(1, example(0)).model_copy(update=EVIDENCE), conformal_p=0.02, **noise)
    answered(db, bundle_id, record(), answer=answer)
    with db.reading() as session:
        row = session.execute(
            text(
                "SELECT encoder_score, ekfac_score, duplicates, spans, verbatim_overlaps, modules FROM v_citations"
            )
        ).one()
        judged = session.execute(text("SELECT conformal_p, novelty_p FROM v_audits")).one()
        noisy = session.execute(text("SELECT weak, noise_level, noise_best FROM v_audits")).one()
        sign = session.scalar(text("SELECT sign_determined FROM v_citations"))
    assert (bool(noisy.weak), noisy.noise_level, noisy.noise_best) == (True, 0.05, 0.12)
    assert (sign is None, bool(sign)) == (False, False)
    assert tuple(row[:3]) == (0.62, 0.4, 3)
    assert all("output" in str(one) for one in row[3:5])
    assert "o_proj" in str(row[5])
    assert tuple(judged) == (0.02, None)


def test_a_requeued_audit_forgets_its_p_values(db: Database, bundle_id: int) -> None:
    """What an earlier answer found says nothing about the next one."""
    (audit_id,) = answered(
        db,
        bundle_id,
        record(),
        answer=attribution(conformal_p=0.9, novelty_p=0.1, weak=True, noise_level=0.1, noise_best=0.2),
    )
    with db.writing() as session:
        session.execute(text("UPDATE audit SET state = 'abstained'"))
    assert waiting.requeue(db, state=AuditState.ABSTAINED) == 1
    row = audit_row(db, audit_id)
    assert (row.conformal_p, row.novelty_p) == (None, None)
    assert (row.weak, row.noise_level, row.noise_best) == (None, None, None)


#: The columns that release 0.1.0 writes.
_OLD_CITATION = (
    "audit_id, training_example_id, rank, source, tier, score, retrieval_score, bm25_score, similarity_score"
)


def test_the_release_before_may_go_on_writing(db: Database, bundle_id: int) -> None:
    """A row without the new columns is stored and read: while an upgrade rolls, both releases write."""
    (audit_id,) = answered(db, bundle_id, record(), answer=attribution())
    with db.writing() as session:
        session.execute(
            text(
                f"INSERT INTO citation ({_OLD_CITATION}) VALUES ({audit_id}, 1, 1, 's', 'influence', 1, 1, 1, 1)"
            )
        )
    (one,) = reader.get_audit(db, audit_id).citations
    assert (one.ekfac_score, one.duplicates, one.spans, one.overlaps) == (None, None, (), ())


@pytest.mark.parametrize("revision", ["0001"])
def test_data_survives_the_way_down_and_up(own: Database, own_url: str, revision: str) -> None:
    """Back to the release before and up again: the citations are there, the new columns are empty."""
    db = own
    answer = attribution(draft(1, example(0)).model_copy(update=EVIDENCE), conformal_p=0.02)
    (audit_id,) = answered(db, register(db), record(), answer=answer)
    migrate.downgrade(own_url, revision)
    migrate.upgrade(own_url)
    (one,) = reader.get_audit(db, audit_id).citations
    assert (one.score, one.spans) == (1.0, (SPAN, SPAN))
    assert (one.ekfac_score, one.overlaps) == (None, ())
    with db.reading() as session:
        for view in VIEWS:
            session.execute(text(f"SELECT * FROM {view}")).all()
