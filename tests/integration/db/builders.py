"""Small makers of what the tests of the database store: records, bundles, answers of the engine."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Engine, event, func, select, update

from db.bundles import catalogue
from db.clock import db_after
from db.erasure import erasures
from db.models import Audit, Base
from db.models import TrainingExample as Example
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing import intake
from wherefrom.records import (
    Attribution,
    CitationDraft,
    Claim,
    ClaimedAudit,
    ErasureDraft,
    ErasureRecord,
    FlaggedRecord,
    IntakeResult,
    Tier,
    TrainingExample,
)

T = TypeVar("T")

MODEL = "support-7"
OWNER = "worker-a"


def sha256(text: str) -> str:
    """The hash that stands for a thing with this name."""
    return hashlib.sha256(text.encode()).hexdigest()


def record(number: int = 0, **fields: Any) -> FlaggedRecord:
    """A flagged output of the known model, told apart by its number."""
    given = {
        "idempotency_key": f"key-{number}",
        "prompt": f"Question {number}?",
        "completion": f"Answer {number}.",
        "model": MODEL,
        "reason": "policy",
    }
    return FlaggedRecord.model_validate(given | fields)


def example(number: int, **fields: Any) -> TrainingExample:
    """The training example in this row of the corpus; three sources take turns."""
    given = {
        "example_id": f"ex-{number:05d}",
        "row": number,
        "source": f"source-{number % 3}",
        "prompt": f"How about {number}?",
        "completion": f"It is {number}.",
        "text_sha256": sha256(str(number)),
    }
    return TrainingExample.model_validate(given | fields)


def register(db: Database, name: str = "bundle-a", **fields: Any) -> int:
    """The id of a bundle that explains the known model with a corpus of five examples."""
    given: dict[str, Any] = {
        "name": name,
        "model": MODEL,
        "weights_sha256": sha256("weights"),
        "adapter_sha256": None,
        "tokenizer_sha256": sha256("tokenizer"),
        "corpus_sha256": sha256("corpus"),
        "corpus_name": "corpus",
        "corpus_examples": 5,
        "form": "forward",
        "card": {"lds": 0.6},
        "examples": [example(number) for number in range(5)],
    }
    return catalogue.register_bundle(db, **(given | fields))


def corpus_of(db: Database) -> int:
    """The corpus that the stored examples are of."""
    with db.reading() as session:
        return session.scalars(select(Example.corpus_id).limit(1)).one()


def draft(rank: int, cited: TrainingExample, *, score: float | None = None) -> CitationDraft:
    """A citation as the engine hands it over."""
    return CitationDraft(
        rank=rank,
        example=cited,
        tier=Tier.INFLUENCE,
        score=(1.0 / rank) if score is None else score,
        retrieval_score=0.5,
        influence_score=0.25 if rank > 0 else -0.25,
        influence_magnitude=2.0,
        bm25_score=1.5,
        similarity_score=0.75,
    )


def attribution(*drafts: CitationDraft, **fields: Any) -> Attribution:
    """The engine's answer with these citations."""
    given = {
        "key": "query",
        "citations": drafts,
        "tokens": 12,
        "truncated": False,
        "loss_nats": 1.25,
        "candidates": 40,
    }
    return Attribution.model_validate(given | fields)


def five_citations() -> Attribution:
    """The corpus of five: examples 0 to 3 as proponents in this order, example 4 as an opponent."""
    return attribution(*(draft(rank, example(rank - 1)) for rank in range(1, 5)), draft(-1, example(4)))


def accept(db: Database, *records: FlaggedRecord, producer: str = "local") -> list[IntakeResult]:
    """What intake answers to records that came over HTTP."""
    return intake.accept(db, records, producer=producer, channel="http")


def claim(
    db: Database,
    bundle_id: int,
    *,
    limit: int = 10,
    owner: str = OWNER,
    lease_s: float = 60,
    max_attempts: int | None = None,
) -> Claim:
    """A claim that must find something."""
    taken = AuditQueue(db).claim(
        bundle_id, limit=limit, owner=owner, lease_s=lease_s, max_attempts=max_attempts
    )
    assert taken is not None, "nothing to claim"
    return taken


def claim_one(db: Database, bundle_id: int, **options: Any) -> ClaimedAudit:
    """The one audit that is next."""
    (one,) = claim(db, bundle_id, **({"limit": 1} | options)).audits
    return one


def answered(
    db: Database, bundle_id: int, *records: FlaggedRecord, answer: Attribution | None = None
) -> list[int]:
    """Ids of audits that were accepted, claimed and finished."""
    accept(db, *records)
    taken = claim(db, bundle_id, limit=len(records))
    done = [Finished(one, answer or five_citations(), 0.5) for one in taken.audits]
    return sorted(AuditQueue(db).finish(done))


def forget(db: Database, *audit_ids: int) -> ErasureRecord:
    """Erase outputs as an operator does; there is no Redis to look through."""
    asked = erasures.ask(db, ErasureDraft(audit_ids=audit_ids, reason="case 9"), by="operator")
    return erasures.carry_out(db, asked, before=lambda _: None)


def expire_leases(db: Database) -> None:
    """As if every owner had been silent for longer than its lease."""
    with db.writing() as session:
        session.execute(update(Audit).where(Audit.lease_until.is_not(None)).values(lease_until=db_after(-1)))


def make_due(db: Database) -> None:
    """As if every wait before a next attempt were over."""
    with db.writing() as session:
        late = {"next_attempt_at": db_after(-1)}
        session.execute(update(Audit).where(Audit.next_attempt_at.is_not(None)).values(**late))


def audit_row(db: Database, audit_id: int) -> Audit:
    """An audit as the table holds it."""
    with db.reading() as session:
        return session.get_one(Audit, audit_id)


def count(db: Database, model: type[Base]) -> int:
    """How many rows a table has."""
    with db.reading() as session:
        return session.scalar(select(func.count()).select_from(model)) or 0


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The answers of calls that run in threads at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(60) for future in [pool.submit(call) for call in calls]]


def plan_of(db: Database, statement: str, parameters: Any = ()) -> list[str]:
    """What SQLite would do for a statement, step by step."""
    with db.reading() as session:
        found = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row[-1] for row in found]


@contextmanager
def recorded_statements() -> Iterator[list[str]]:
    """The SQL statements that run meanwhile, without those that begin a transaction."""
    statements: list[str] = []

    def note(connection: object, cursor: object, statement: str, *others: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)
