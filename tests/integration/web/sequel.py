"""What follows on the story of the pages: a richer answer, findings, and the bundle of the next model."""

import hashlib
from collections.abc import Callable
from typing import Literal

import numpy as np
from sqlalchemy import insert, select, text

from db.bundles import catalogue
from db.models import Finding, OutputVector
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing import intake
from tests.integration.web import story
from wherefrom.records import (
    Attribution,
    AuditState,
    ControlEffect,
    EvidenceSpan,
    MeasuredEffect,
    Overlap,
    Severity,
    Span,
)
from worker.sweeper.finding import group_outputs

ATTACK = '<img src=x onerror="alert(1)">'
#: What `answer_one` flags where no other text is given.
OUTPUT = f"We refund every product {ATTACK} at any time, no receipt."
EFFECT = MeasuredEffect(
    effect_nats=0.0123, low_nats=0.01, high_nats=0.0146, z=5.25, seeds=3,
    controls=(ControlEffect(example_ids=("c",), effect_nats=-0.0004), ControlEffect(example_ids=("d",), effect_nats=0.001)),
    group=("a", "b"), weak=False, cost_seconds=75.0,
)  # fmt: skip
#: The story's bundle, and that of the next model.
BEFORE, AFTER = "b-5f0c9a7d31e2", "b-cleaned"
#: The corpus without the source that taught refunds, counted anew.
CLEANED = [
    one.model_copy(update={"row": number, "example_id": f"row-{number:06d}"})
    for number, one in enumerate(one for one in story.corpus(60) if one.source != "vendor_batch_07")
]


def answer_one(
    stored_story: story.Story,
    database: Database,
    change: Callable[[Attribution], Attribution],
    *,
    state: Literal[AuditState.DONE, AuditState.ABSTAINED] = AuditState.DONE,
    code: str | None = None,
    reason: str | None = None,
    completion: str | None = None,
) -> int:
    """The audit of one more flagged output, whose answer is changed by the test."""
    record = story.record(700).model_copy(
        update={"severity": Severity.CRITICAL, "completion": completion or OUTPUT, "idempotency_key": None}
    )
    (accepted,) = intake.accept(database, [record], producer="local", channel="http")
    batch = AuditQueue(database).claim(stored_story.bundle_id, limit=1, owner="w", lease_s=60)
    assert batch is not None
    assert batch.audits[0].audit_id == accepted.audit_id, "the most urgent is claimed first"
    answer = change(story.attribution(record, story.corpus(20)))
    AuditQueue(database).finish(
        [Finished(batch.audits[0], answer, 0.1, state=state, code=code, reason=reason)]
    )
    return batch.audits[0].audit_id


def with_evidence(answer: Attribution) -> Attribution:
    """The first citation with two pairs of stretches, an overlap inside of the first, and every other number."""
    first = answer.citations[0].model_copy(
        update={
            "spans": (
                EvidenceSpan(output=Span(start=3, end=20), example=Span(start=0, end=12), share=0.62),
                EvidenceSpan(output=Span(start=24, end=60), example=Span(start=14, end=18), share=0.2),
            ),
            "overlaps": (Overlap(output=Span(start=3, end=9), example=Span(start=3, end=9), tokens=2),),
            "encoder_score": 0.57,
            "ekfac_score": 0.41,
            "effect_nats": 0.0042,
            "effect_basis": "bank of 64",
            "confidence": 0.83,
            "duplicates": 4,
        }
    )
    update = {"citations": (first, *answer.citations[1:]), "conformal_p": 0.004, "novelty_p": 0.02}
    return answer.model_copy(update=update)


def group_story(db: Database) -> list[int]:
    """Give the story's answered outputs vectors of two kinds, by turns, and group them; the findings' numbers."""
    with db.writing() as session:
        rows = session.execute(
            text("SELECT a.flagged_output_id AS o, a.bundle_id AS b FROM audit a JOIN flagged_text t ON t.flagged_output_id = a.flagged_output_id"
                 " JOIN flagged_output f ON f.id = a.flagged_output_id WHERE a.state IN ('done', 'abstained') AND f.members IS NULL ORDER BY a.id")
        ).all()  # fmt: skip
        vectors = []
        for place, row in enumerate(rows):
            noise = np.random.default_rng(place).normal(0, 5, 16)
            noise[place % 2] += 100
            vector = np.rint(noise).clip(-127, 127).astype(np.int8).tobytes()
            vectors.append({"flagged_output_id": row.o, "bundle_id": row.b, "vector": vector})
        session.execute(insert(OutputVector), vectors)
    group_outputs(db)
    with db.reading() as session:
        return list(session.scalars(select(Finding.id).order_by(Finding.outputs.desc(), Finding.id.desc())))


def next_model(database: Database, name: str = AFTER) -> int:
    """Register the bundle of the next model, trained on the cleaned corpus."""
    return catalogue.register_bundle(
        database,
        name=name,
        model=f"{name}-model",
        weights_sha256=hashlib.sha256(name.encode()).hexdigest(),
        adapter_sha256=None,
        tokenizer_sha256="3" * 64,
        corpus_sha256=hashlib.sha256(f"{name} corpus".encode()).hexdigest(),
        corpus_name="cleaned",
        corpus_examples=len(CLEANED),
        form="activation",
        card={},
        examples=CLEANED,
    )


def answer_all(database: Database, bundle_id: int) -> None:
    """Answer what is pending under a bundle."""
    claim = AuditQueue(database).claim(bundle_id, limit=100, owner="w", lease_s=60)
    assert claim is not None
    done = [Finished(one, story.attribution(one.record, CLEANED), 0.1) for one in claim.audits]
    AuditQueue(database).finish(done)
