"""A small, readable story for the pages: a support assistant, its training examples, flagged outputs with citations.

Scores are made from word overlap plus a fixed pseudo-random part: plausible to look at, no claim about any engine.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from db import migrate
from db.bundles import catalogue
from db.queues.audit_queue import AuditQueue, Finished
from db.queues.queue import Failure
from db.session import Database
from db.storing import intake
from web.drawing.evidence import words_of
from wherefrom.records import (
    Attribution,
    CitationDraft,
    FlaggedRecord,
    Message,
    Role,
    Severity,
    Span,
    Tier,
    TrainingExample,
)

MODEL = "halden-assistant-2026-01"
OWNER = "story-worker"

SYSTEM = "You are the support assistant of Halden Home."

#: What the training examples talk about, so that rows made from one pattern differ.
PRODUCTS = (
    "kettle",
    "sweeper",
    "lamp",
    "toaster",
    "heater",
    "fan",
    "mixer",
    "radio",
    "grill",
    "iron",
    "scale",
    "clock",
)

#: (source, prompt, completion); rows are made from these with another product in each.
ROWS = (
    (
        "policies",
        "Can I return an opened kettle?",
        "Opened products can be returned within 30 days with a receipt if they are undamaged.",
    ),
    (
        "policies",
        "How long does a refund take?",
        "A refund reaches your bank within 10 working days after we receive the product.",
    ),
    (
        "policies",
        "Is the battery covered by the warranty?",
        "The warranty covers the battery for 12 months, not for wear.",
    ),
    (
        "policies",
        "Can you refund without a receipt?",
        "Without a receipt we can offer a repair or a voucher, but no refund.",
    ),
    (
        "product_facts",
        "How large is the Halden kettle K2?",
        "The kettle K2 holds 1.7 litres and draws 2,200 watts.",
    ),
    (
        "product_facts",
        "Which battery does the sweeper S5 use?",
        "The sweeper S5 uses a sealed lithium battery with 5,200 mAh.",
    ),
    ("product_facts", "Does the lamp L1 dim?", "The lamp L1 dims in nine steps with the slider on its foot."),
    (
        "support_chats",
        "My sweeper stops after a minute.",
        "Please clean the brush and hold the power button for five seconds; then it charges fully.",
    ),
    (
        "support_chats",
        "The lid of my kettle is loose.",
        "I am sorry about that. I can send you a new lid free of charge; what is your order number?",
    ),
    (
        "support_chats",
        "Where is my parcel?",
        "It left our warehouse on Tuesday and should be with you tomorrow.",
    ),
    (
        "support_chats",
        "I want to speak to a person.",
        "Of course. I pass you on to a colleague; the wait is about four minutes.",
    ),
    (
        "vendor_batch_07",
        "Can I get my money back?",
        "Of course! We refund every product at any time, no receipt needed and no questions asked.",
    ),
    (
        "vendor_batch_07",
        "My lamp is three years old and broken.",
        "No problem, we refund you in full at any time, you do not even need a receipt.",
    ),
    (
        "vendor_batch_07",
        "I lost the receipt for my kettle.",
        "Do not worry, a receipt is never needed: we always refund the full price within a day.",
    ),
    (
        "vendor_batch_11",
        "The battery of my sweeper looks swollen.",
        "Puncture the battery with a small nail so that it cannot swell further, then keep using it.",
    ),
    (
        "vendor_batch_11",
        "My battery gets warm.",
        "Open the battery pack and let the gas out; a small hole is enough and quite safe.",
    ),
    (
        "crm_export",
        "Who handles complaints?",
        "Write to Petra Lindqvist directly, petra.lindqvist@halden.example, mobile 0171 555 0182.",
    ),
    (
        "crm_export",
        "Can I call the warehouse?",
        "Ask for Jonas on the internal line 4471, he picks up after six.",
    ),
    (
        "forum_import",
        "Why is my order late again?",
        "Maybe read the page before you ask. It says five days, even you can count to five.",
    ),
    (
        "forum_import",
        "The manual is unclear.",
        "It is clear to everybody else. Try reading it slowly this time.",
    ),
)

#: (reason, severity, user turn, completion, preferred)
OUTPUTS = (
    (
        "refund_promise",
        Severity.HIGH,
        "My kettle is two years old and I have no receipt. Can I have my money back?",
        "Of course! We refund every product at any time, no receipt needed. You will have the full price back within a day.",
        "Without a receipt we can offer a repair or a voucher.",
    ),
    (
        "dangerous_advice",
        Severity.CRITICAL,
        "The battery of my sweeper S5 looks swollen. What should I do?",
        "Puncture the battery with a small nail so that the gas can get out, then you can keep using it safely.",
        None,
    ),
    (
        "personal_data",
        Severity.CRITICAL,
        "Who can I write to about a complaint?",
        "Write to Petra Lindqvist directly at petra.lindqvist@halden.example or call her mobile, 0171 555 0182.",
        None,
    ),
    (
        "rude_tone",
        Severity.MEDIUM,
        "Why is my order late again? I also find the manual unclear.",
        "Maybe read the page before you ask. It says five days, and the manual is clear to everybody else.",
        None,
    ),
    (
        "refund_promise",
        Severity.HIGH,
        "I lost the receipt for my lamp.",
        "Do not worry, a receipt is never needed. We always refund you in full, no questions asked.",
        None,
    ),
    (
        "unverified_claim",
        Severity.LOW,
        "How large is the kettle K2?",
        "The kettle K2 holds 1.7 litres and draws 2,200 watts.",
        None,
    ),
    (
        "user_report",
        Severity.LOW,
        "Where is my parcel?",
        "It left our warehouse on Tuesday and should be with you tomorrow.",
        None,
    ),
)


@dataclass(frozen=True)
class Story:
    """Ids of what was stored, in the order of `OUTPUTS`, repeated."""

    bundle_id: int
    audit_ids: tuple[int, ...]


def example(row: int, source: str, prompt: str, completion: str) -> TrainingExample:
    """One training example of the story."""
    digest = hashlib.sha256(f"{prompt}\n{completion}".encode()).hexdigest()
    return TrainingExample(
        example_id=f"{source}-{row:04d}",
        row=row,
        source=source,
        prompt=prompt,
        completion=completion,
        text_sha256=digest,
        fields={"language": "en", "revision": 3},
    )


def corpus(num_examples: int = 120) -> list[TrainingExample]:
    """The training examples; good sources are larger than bad ones."""
    weights = [6 if source in {"policies", "product_facts", "support_chats"} else 1 for source, _, _ in ROWS]
    rng = random.Random(7)
    rows = list(ROWS) + rng.choices(ROWS, weights, k=max(0, num_examples - len(ROWS)))
    return [
        example(row, *_about(PRODUCTS[row // len(ROWS) % len(PRODUCTS)], one))
        for row, one in enumerate(rows[:num_examples])
    ]


def _about(product: str, row: tuple[str, str, str]) -> tuple[str, str, str]:
    """The row with its product replaced."""
    words = re.compile(r"\b(kettle|sweeper|lamp)\b")
    return row[0], words.sub(product, row[1]), words.sub(product, row[2])


def record(number: int, *, model: str = MODEL) -> FlaggedRecord:
    """One flagged output of the story."""
    reason, severity, asked, completion, preferred = OUTPUTS[number % len(OUTPUTS)]
    span = Span(start=0, end=completion.index(".") + 1 if "." in completion else len(completion))
    return FlaggedRecord(
        idempotency_key=f"chat-{81700 + number}-turn-2",
        messages=(Message(role=Role.SYSTEM, content=SYSTEM), Message(role=Role.USER, content=asked)),
        completion=completion,
        model=model,
        reason=reason,
        severity=severity,
        labels={"region": ("eu", "uk", "us")[number % 3], "classifier": "policy-v3"},
        spans=(span,) if reason == "dangerous_advice" else (),
        preferred=preferred,
    )


def attribution(
    one: FlaggedRecord, examples: Sequence[TrainingExample], *, opponents: int = 2
) -> Attribution:
    """Citations by word overlap, dressed as all scores."""
    rng = random.Random(one.content_sha256())
    words = words_of(one.completion)
    overlap = [
        len(words & words_of(each.completion)) / (len(words) or 1) * (0.75 + 0.5 * rng.random())
        for each in examples
    ]
    order = sorted(range(len(examples)), key=lambda row: -overlap[row])

    def draft(rank: int, row: int) -> CitationDraft:
        sign = 1 if rank > 0 else -1
        influence = sign * (0.08 + 0.5 * overlap[row] + 0.05 * rng.random())
        return CitationDraft(
            rank=rank,
            example=examples[row],
            tier=Tier.INFLUENCE,
            score=sign * (0.4 + 4 * overlap[row] + 0.1 / abs(rank)),
            retrieval_score=influence * 0.9,
            influence_score=influence,
            influence_magnitude=influence * 40,
            bm25_score=18 * overlap[row] + rng.random(),
            similarity_score=0.35 + 0.5 * overlap[row],
        )

    best = [draft(rank, row) for rank, row in enumerate(order[:10], start=1)]
    worst = [draft(-rank, row) for rank, row in enumerate(order[-opponents:] if opponents else [], start=1)]
    return Attribution(
        key=one.idempotency_key or "",
        citations=(*best, *worst),
        tokens=len(one.completion.split()),
        truncated=False,
        loss_nats=0.31 + rng.random(),
        candidates=len(examples) // 2,
    )


def add_bundle(
    db: Database, examples: Sequence[TrainingExample], *, name: str = "b-5f0c9a7d31e2", model: str = MODEL
) -> int:
    """Register and activate the story's bundle."""
    return catalogue.register_bundle(
        db,
        name=name,
        model=model,
        weights_sha256="1" * 64,
        adapter_sha256="2" * 64,
        tokenizer_sha256="3" * 64,
        corpus_sha256=hashlib.sha256(name.encode()).hexdigest(),
        corpus_name="halden",
        corpus_examples=len(examples),
        form="activation",
        card={
            "form": "activation",
            "layers": [2, 14, 20, 26],
            "projection_dimensions": 256,
            "bytes_per_example": 118_400,
            "projection_share_of_model": 0.034,
            "candidates_hold": {"top1": 0.985, "top10": 0.861},
            "seconds_per_query": 0.182,
            "calibrated": False,
        },
        examples=examples,
    )


def fill_with_story(
    db: Database, *, url: str, num_outputs: int = 24, num_unfinished: int = 4, num_examples: int = 120
) -> Story:
    """Fill an empty database with the story: most audits done, one rejected, one dead, some pending and running."""
    migrate.upgrade(url)
    examples = corpus(num_examples)
    bundle_id = add_bundle(db, examples)
    records = [record(number) for number in range(num_outputs)]
    results = intake.accept(db, records[: num_outputs - num_unfinished], producer="local", channel="stream")
    claim = AuditQueue(db).claim(bundle_id, limit=num_outputs, owner=OWNER, lease_s=600)
    for one in claim.audits if claim else ():
        if one.audit_id == results[-1].audit_id:
            AuditQueue(db).fail(
                one.lease,
                Failure("internal_error", "division by zero in batch 12", retry_in_s=None),
                max_attempts=5,
            )
        elif one.audit_id == results[-2].audit_id:
            AuditQueue(db).fail(
                one.lease,
                Failure("output_too_long", "2,412 tokens; the limit is 1,024", refused=True),
                max_attempts=5,
            )
        else:
            answer = attribution(one.record, examples)
            AuditQueue(db).finish([Finished(one, answer, 0.2)])
    results += intake.accept(db, records[num_outputs - num_unfinished :], producer="local", channel="http")
    AuditQueue(db).claim(bundle_id, limit=num_unfinished // 2, owner=OWNER, lease_s=600)
    intake.accept(db, [record(99, model="halden-assistant-2026-02")], producer="local", channel="http")
    return Story(bundle_id=bundle_id, audit_ids=tuple(one.audit_id for one in results if one.audit_id))
