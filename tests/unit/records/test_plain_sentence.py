"""The sentence on top of an audit is never more certain than the numbers."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from wherefrom.records import (
    AuditDetail,
    AuditState,
    AuditSummary,
    CitationRecord,
    Conclusion,
    ControlEffect,
    MeasurementRecord,
    MeasurementState,
    Method,
    Severity,
    Strength,
    Tier,
    conclusion_of,
)

NOW = datetime(2026, 11, 27, tzinfo=UTC)


def citation(rank: int, **fields: Any) -> CitationRecord:
    """A citation whose influence clearly speaks for the output."""
    given: dict[str, Any] = {
        "rank": rank, "example_id": f"ex-{rank}", "training_example_id": rank, "source": "vendor", "prompt": "", "completion": "text",
        "text_sha256": "0" * 64, "tier": Tier.INFLUENCE, "score": 1.0, "retrieval_score": 0.5, "influence_score": 0.4, "sign_determined": True,
        "influence_magnitude": 1.0, "bm25_score": 1.0, "similarity_score": 0.5, "effect_nats": None, "effect_basis": None, "confidence": 0.8,
    }  # fmt: skip
    return CitationRecord.model_validate(given | fields)


def measured(rank: int = 1, **fields: Any) -> MeasurementRecord:
    """A refit that showed an effect beyond its controls."""
    given: dict[str, Any] = {
        "measurement_id": 1, "audit_id": 1, "state": MeasurementState.DONE, "attempt": 1, "effect_nats": 0.02, "low_nats": 0.01, "high_nats": 0.03,
        "z": 4.0, "seeds": 3, "controls": (ControlEffect(example_ids=("c",), effect_nats=0.0),), "group": ("ex-1",), "requested_by": "ann",
        "created_at": NOW, "rank": rank, "example_id": "ex-1", "method": Method.REFIT, "weak": False,
    }  # fmt: skip
    return MeasurementRecord.model_validate(given | fields)


def detail(
    *citations: CitationRecord, measurements: Any = (), noise_best: Any = 0.1, **audit: Any
) -> AuditDetail:
    """An audit that is calibrated, supported, and like its calibration."""
    given: dict[str, Any] = {
        "audit_id": 1, "output_id": 1, "state": AuditState.DONE, "code": None, "reason": None, "model": "m", "bundle": "b", "flag_reason": "r",
        "severity": Severity.LOW, "channel": "http", "attempt": 1, "truncated": False, "created_at": NOW, "finished_at": NOW, "excerpt": "",
        "top_source": "vendor", "top_score": 1.0, "conformal_p": 0.01, "novelty_p": 0.8, "weak": False,
    }  # fmt: skip
    return AuditDetail(
        audit=AuditSummary.model_validate(given | audit), idempotency_key="k", occurred_at=None, labels={}, turns=(), completion="said",
        spans=(), preferred=None, loss_nats=1.0, tokens=3, candidates=9, noise_best=noise_best, seconds=1.0, citations=citations, opponents=(), measurements=measurements,
    )  # fmt: skip


def found(*citations: CitationRecord, **fields: Any) -> Conclusion:
    """What is found; there must be something."""
    told = conclusion_of(detail(*citations, **fields))
    assert told is not None
    return told


def test_three_likely_examples() -> None:
    """Number, source, and the range of their confidences, never rounded up."""
    told = found(citation(1, confidence=0.996), citation(2), citation(3), citation(4, confidence=0.2))
    assert (told.strength, told.text) == (
        Strength.STRONG,
        "3 training examples from vendor probably taught this.",
    )
    assert "Confidence 80 to 99 % each" in told.because
    assert told.ranks == (1, 2, 3)


def test_two_sources_are_named_with_their_numbers() -> None:
    """Most citations first; further sources are only counted."""
    many = [
        citation(1),
        citation(2, source="chats"),
        citation(3),
        citation(4, source="wiki"),
        citation(5, source="faq"),
    ]
    assert (
        found(*many).text
        == "2 training examples from vendor and 1 from chats and 2 from other sources probably taught this.".replace(
            "vendor and 1 from chats and", "vendor, 1 from chats and"
        )
    )


@pytest.mark.parametrize(
    ("change", "audit", "strength", "why"),
    [
        ({}, {"weak": True}, Strength.WEAK, "chance"),
        ({}, {"conformal_p": 0.2}, Strength.WEAK, "20 % of outputs without a cause"),
        ({}, {"novelty_p": 0.01}, Strength.WEAK, "unlike those"),
        ({"confidence": 0.49}, {}, Strength.SUPPORTED, "highest confidence is 49 %"),
        ({"confidence": None}, {}, Strength.SUPPORTED, "no confidence"),
        ({"sign_determined": False}, {}, Strength.WEAK, "highest confidence is 80 %"),
        ({"influence_score": -0.3}, {}, Strength.WEAK, "highest confidence is 80 %"),
        ({}, {"conformal_p": None}, Strength.NOT_CALIBRATED, "not calibrated"),
        ({}, {"conformal_p": None, "weak": True}, Strength.NOT_CALIBRATED, "may be chance"),
        ({}, {"state": AuditState.ABSTAINED, "reason": "p = 0.8"}, Strength.NOT_SUPPORTED, "P = 0.8."),
        ({}, {"members": 3, "conformal_p": None}, Strength.NOT_CALIBRATED, "several outputs"),
    ],
)  # fmt: skip
def test_each_doubt_takes_certainty_away(change: Any, audit: Any, strength: Strength, why: str) -> None:
    """One doubt is enough, and it is told."""
    told = found(citation(1, **change), **audit)
    assert told.strength is strength
    assert why in told.because
    assert "probably" not in told.text


def test_no_answer_no_conclusion() -> None:
    """Nothing is said before the engine answered; without citations nothing is supported."""
    assert conclusion_of(detail(citation(1), state=AuditState.PENDING)) is None
    assert found().strength is Strength.NOT_SUPPORTED


def test_a_measured_effect_stands_above_all() -> None:
    """Also above an abstention; but not without controls, nor where its interval holds zero, nor by one step."""
    abstained = {"state": AuditState.ABSTAINED, "reason": "p = 0.8"}
    told = found(citation(1), measurements=(measured(),), **abstained)
    assert told.strength is Strength.MEASURED
    assert told.ranks == (1,)
    for change in (
        {"controls": ()},
        {"low_nats": -0.001},
        {"weak": True, "method": Method.ONE_STEP},
        {"z": None},
        {"rank": -1},
    ):
        assert (
            found(citation(1), measurements=(measured(**change),), **abstained).strength
            is Strength.NOT_SUPPORTED
        )


def test_a_refuted_example_is_no_longer_likely() -> None:
    """A refit that found nothing takes the example out of the sentence."""
    nothing = measured(low_nats=-0.01, z=0.3)
    assert found(citation(1), citation(2), measurements=(nothing,)).ranks == (2,)
    told = found(citation(1), measurements=(nothing,))
    assert told.strength is not Strength.STRONG
    assert "measured" in told.because


@given(
    some.fixed_dictionaries(
        {
            "confidence": some.none() | some.floats(0, 1),
            "influence_score": some.none() | some.floats(-1, 1),
            "sign_determined": some.none() | some.booleans(),
        }
    ),
    some.fixed_dictionaries(
        {
            "conformal_p": some.none() | some.floats(0, 1),
            "novelty_p": some.none() | some.floats(0, 1),
            "weak": some.none() | some.booleans(),
        }
    ),
)
def test_probably_needs_every_number(of_citation: dict[str, Any], of_audit: dict[str, Any]) -> None:
    """Whatever the numbers are: no `probably` unless all of them allow it."""
    told = found(citation(1, **of_citation), **of_audit)
    p, novelty = of_audit["conformal_p"], of_audit["novelty_p"]
    allowed = (
        (of_citation["confidence"] or 0) >= 0.5
        and (of_citation["influence_score"] or 0) > 0
        and of_citation["sign_determined"] is not False
        and (p is not None and p <= 0.05)
        and (novelty is None or novelty >= 0.05)
        and not of_audit["weak"]
    )
    assert ("probably" in told.text) == allowed
    assert (told.strength is Strength.STRONG) == allowed
