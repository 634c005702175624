"""Audits and training examples as rows of tables: which columns there are, and of what kind. No files, no SQL, no HTTP."""

import json
from collections.abc import Iterator
from typing import Any

from wherefrom.records import AuditDetail, CitationRecord, ExportedExample, ExportRows

Row = dict[str, Any]

_AUDIT_FIELDS = (
    "audit_id", "output_id", "state", "code", "reason", "model", "bundle", "flag_reason", "severity", "channel",
    "created_at", "finished_at", "truncated", "weak", "conformal_p", "novelty_p",
)  # fmt: skip
_DETAIL_FIELDS = (
    "idempotency_key",
    "occurred_at",
    "completion",
    "loss_nats",
    "tokens",
    "noise_level",
    "noise_best",
)
#: What a row of an audit has beyond what each row of its citations has.
_WHOLE_FIELDS = (
    "top_source", "top_score", "first_example_id", "citations", "opponents", "members", "hypothetical_of",
    "group_audit_id", "supported", "conclusion_strength", "conclusion",
)  # fmt: skip
#: A citation's own columns; its texts are told apart from the flagged output's.
_CITATION_FIELDS = {
    name: f"example_{name}" if name in ("prompt", "completion") else name
    for name in CitationRecord.model_fields
}
_SHARED = (*_AUDIT_FIELDS, *_DETAIL_FIELDS, "labels", "prompt")
#: Columns of the tables, in order.
COLUMNS: dict[ExportRows, tuple[str, ...]] = {
    ExportRows.AUDITS: (*_SHARED, *_WHOLE_FIELDS),
    ExportRows.CITATIONS: (*_SHARED, *_CITATION_FIELDS.values()),
    ExportRows.EXAMPLES: tuple(ExportedExample.model_fields),
}
#: Columns that hold whole numbers, numbers, and yes or no; all others hold text.
INTEGERS = frozenset(
    {
        "audit_id", "output_id", "tokens", "rank", "training_example_id", "duplicates", "citations", "opponents", "members",
        "hypothetical_of", "group_audit_id", "outputs", "first_citations", "best_rank", "confirmed", "unrelated",
    }
)  # fmt: skip
FLOATS = frozenset(
    {
        "loss_nats", "score", "retrieval_score", "influence_score", "influence_magnitude", "bm25_score",
        "similarity_score", "encoder_score", "effect_nats", "confidence", "ekfac_score", "effect_score", "conformal_p", "novelty_p",
        "measured_effect_nats", "measured_low_nats", "measured_high_nats", "noise_level", "noise_best", "top_score",
        "strength", "mean_influence", "measured_nats",
    }
)  # fmt: skip
TRUTHS = frozenset({"truncated", "weak", "sign_determined", "supported"})


def rows_of(detail: AuditDetail, kind: ExportRows) -> Iterator[Row]:
    """The rows of one audit: itself, or one per citation with opponents behind them; one row without a citation where there is none."""
    if kind is ExportRows.AUDITS:
        yield _audit_row(detail)
        return
    plain = detail.model_dump(mode="json", include={"citations", "opponents"})
    shared = _shared(detail)
    nothing: Row = dict.fromkeys(_CITATION_FIELDS)
    for citation in [*plain["citations"], *plain["opponents"]] or [nothing]:
        yield shared | {column: _cell(citation[name]) for name, column in _CITATION_FIELDS.items()}


def _audit_row(detail: AuditDetail) -> Row:
    audit, conclusion = detail.audit, detail.conclusion
    return _shared(detail) | {
        "top_source": audit.top_source,
        "top_score": audit.top_score,
        "first_example_id": detail.citations[0].example_id if detail.citations else None,
        "citations": len(detail.citations),
        "opponents": len(detail.opponents),
        "members": audit.members,
        "hypothetical_of": detail.hypothetical_of,
        "group_audit_id": detail.group_audit_id,
        "supported": audit.supported,
        "conclusion_strength": None if conclusion is None else conclusion.strength.value,
        "conclusion": None if conclusion is None else conclusion.text,
    }


def _shared(detail: AuditDetail) -> Row:
    plain = detail.model_dump(mode="json", include={"audit", "labels", *_DETAIL_FIELDS})
    shared: Row = {name: plain["audit"][name] for name in _AUDIT_FIELDS}
    shared |= {name: plain[name] for name in _DETAIL_FIELDS}
    shared["labels"] = json.dumps(plain["labels"], ensure_ascii=False, sort_keys=True)
    shared["prompt"] = "\n".join(f"{turn.role.value}: {turn.content}" for turn in detail.turns)
    return shared


def _cell(value: object) -> object:
    """A plain value as it is; lists such as `spans` as JSON text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
