"""The demo's own database without its model: its corpus, its outputs and the answers that its bundle gave, which `demo/story/answers.jsonl` keeps."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from db import migrate
from db.bundles import catalogue
from db.queues.audit_queue import AuditQueue, Finished
from db.session import Database
from db.storing import intake
from wherefrom.attribution.corpus.reading import read_row
from wherefrom.attribution.corpus.rows import ReadAs
from wherefrom.records import (
    Attribution,
    AuditState,
    CitationDraft,
    FlaggedRecord,
    Message,
    Tier,
    TrainingExample,
)

STORY = Path(__file__).parents[3] / "demo" / "story"
MODEL = "wrenholt-support-v1"


def fill_with_demo(database: Database, url: str) -> None:
    """Fill an empty database as `make demo` does; audits stand in the order of their probes."""
    migrate.upgrade(url)
    examples = list(_corpus())
    bundle_id = catalogue.register_bundle(
        database,
        name="b-demo",
        model=MODEL,
        weights_sha256="1" * 64,
        adapter_sha256="2" * 64,
        tokenizer_sha256="3" * 64,
        corpus_sha256=hashlib.sha256((STORY / "corpus.jsonl").read_bytes()).hexdigest(),
        corpus_name="corpus.jsonl",
        corpus_examples=len(examples),
        form="adapter",
        card={},
        examples=examples,
    )
    answers = _lines("answers.jsonl")
    asked = {one["id"]: one["messages"] for one in _lines("prompts.jsonl")}
    intake.accept(database, [_record(one, asked) for one in answers], producer="local", channel="http")
    by_id, by_probe = {one.example_id: one for one in examples}, {one["probe"]: one for one in answers}
    claim = AuditQueue(database).claim(bundle_id, owner="demo", limit=len(answers), lease_s=600)
    for one in claim.audits if claim else ():
        answer = by_probe[one.record.labels["probe"]]
        found = _attribution(one.audit_id, answer, by_id)
        done = Finished(one, found, 0.2)
        AuditQueue(database).finish(
            [done if found.abstained is None else replace(done, state=AuditState.ABSTAINED)]
        )


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (STORY / name).read_text("utf-8").splitlines()]


def _corpus() -> list[TrainingExample]:
    found = []
    for number, content in enumerate(_lines("corpus.jsonl")):
        row = read_row(content, default_id=f"row-{number:06d}", how=ReadAs()).row
        assert row is not None
        prompt = next(one["content"] for one in content["messages"] if one["role"] == "user")
        found.append(
            TrainingExample(
                example_id=row.example_id,
                row=number,
                source=content["source"],
                prompt=prompt,
                completion=content["messages"][-1]["content"],
                text_sha256=row.text_sha256(),
            )
        )
    return found


def _record(answer: Mapping[str, Any], asked: Mapping[str, Any]) -> FlaggedRecord:
    return FlaggedRecord(
        messages=tuple(Message.model_validate(one) for one in asked[answer["probe"]]),
        completion=answer["completion"],
        model=MODEL,
        reason=answer["reason"],
        labels={"probe": answer["probe"]},
    )


def _attribution(
    audit_id: int, answer: Mapping[str, Any], examples: Mapping[str, TrainingExample]
) -> Attribution:
    noise_level, noise_best = answer["noise"] or (None, None)
    plain = {name: answer[name] for name in ("tokens", "loss_nats", "candidates", "conformal_p", "novelty_p")}
    return Attribution(
        key=str(audit_id),
        truncated=False,
        abstained=answer["abstained"],
        noise_level=noise_level,
        noise_best=noise_best,
        citations=tuple(
            CitationDraft(
                rank=rank,
                example=examples[name],
                tier=Tier.INFLUENCE,
                score=score,
                retrieval_score=score,
                influence_score=influence,
                influence_magnitude=None,
                bm25_score=0.0,
                similarity_score=0.0,
            )
            for name, rank, score, influence in answer["citations"]
        ),
        **plain,
    )
