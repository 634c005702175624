"""The demo's closing figures, on audits whose answer is known."""

from datetime import UTC, datetime

import numpy as np
import pytest

from scripts.demo_outputs import DemoOutput
from scripts.demo_report import Baseline, by_behaviour, lowest_sources, measure
from wherefrom.attribution.bundles.examples import write_examples
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.records import (
    AuditDetail,
    AuditState,
    AuditSummary,
    CitationRecord,
    Severity,
    Tier,
    TrainingExample,
)

SOURCES = ["bad", "good", "good", "good"]
TEXTS = ["never mind the receipt", "thirty days with a receipt", "charge it overnight", "clean the filter"]


@pytest.fixture
def bundle(tmp_path):
    """The two parts of a bundle that the report reads."""
    write_examples(
        tmp_path,
        (
            TrainingExample(
                example_id=f"e{row}", row=row, source=source, prompt="", completion=text, text_sha256="0" * 64
            )
            for row, (source, text) in enumerate(zip(SOURCES, TEXTS, strict=True))
        ),
    )
    LexicalIndex.build(TEXTS).save(tmp_path / "lexical")
    return tmp_path


def output(probe: str, text: str, source: str | None, kind: str | None = None) -> DemoOutput:
    """A generated output."""
    kind = kind or ("benign" if source is None else "aimed")
    return DemoOutput(probe, [{"role": "user", "content": "?"}], text, f"reason {kind}", source, kind)


def audit(
    probe: str, *sources: str, state: AuditState = AuditState.DONE, influence: float = 0.0
) -> AuditDetail:
    """A finished audit that cites these sources in this order."""
    now = datetime.now(UTC)
    summary = AuditSummary(
        audit_id=1, output_id=1, state=state, code=None, reason=None, model="m", bundle="b", flag_reason="r",
        severity=Severity.LOW, channel="http", attempt=1, truncated=False, created_at=now, finished_at=now,
        excerpt="", top_source=None, top_score=None,
    )  # fmt: skip
    citations = tuple(
        CitationRecord(
            rank=rank, example_id="e", training_example_id=rank, source=source, prompt="", completion="", text_sha256="0" * 64,
            tier=Tier.INFLUENCE, score=1.0, retrieval_score=0.0, influence_score=influence, influence_magnitude=0.0, bm25_score=0.0,
            similarity_score=0.0, effect_nats=None, effect_basis=None, confidence=None,
        )
        for rank, source in enumerate(sources, start=1)
    )  # fmt: skip
    return AuditDetail(
        audit=summary, idempotency_key=probe, occurred_at=None, labels={"probe": probe}, turns=(), completion="", spans=(),
        preferred=None, loss_nats=None, tokens=None, candidates=None, seconds=None, citations=citations, opponents=(),
    )  # fmt: skip


def test_shares_are_of_five_and_means_over_outputs(bundle):
    """Two of five right and one accused of two: .4 and .5; a dead audit counts as nothing found."""
    outputs = [
        output("a", "receipt", "bad"),
        output("b", "receipt", "bad"),
        output("c", "x", None),
        output("d", "x", None),
    ]
    audits = {
        "a": audit("a", "bad", "bad", "good", "good", "good", "bad"),
        "b": audit("b", state=AuditState.DEAD),
        "c": audit("c", "bad", "good"),
        "d": audit("d", "good", "bad"),
    }
    result = measure(outputs, audits, Baseline.of(outputs, bundle), {"bad"}, lowest={})
    assert result["flagged"] == 2
    assert result["benign"] == 2
    assert (result["done"], result["dead"], result["abstained"]) == (3, 1, 0)
    assert result["top5_from_true_source"] == pytest.approx(0.2)
    assert result["base_rate"] == pytest.approx(0.25)
    assert result["bm25_top5_from_true_source"] == pytest.approx(0.2)
    assert result["benign_accused"] == pytest.approx(0.5)


def test_hard_and_foreign_outputs_are_counted_apart(bundle):
    """They leave the figures of the story alone, and a foreign output counts only where the audit abstains."""
    outputs = [
        output("a", "receipt", "bad"),
        output("h", "filter", "bad", "hard"),
        output("f", "x", None, "foreign"),
        output("g", "x", None, "foreign"),
    ]
    audits = {
        "a": audit("a", "bad", "bad", "bad", "bad", "bad", influence=0.2),
        "h": audit("h", "bad", "good", "good", "good", "good", influence=-0.1),
        "f": audit("f", "bad", state=AuditState.ABSTAINED),
        "g": audit("g", "bad"),
    }
    baseline = Baseline.of(outputs, bundle)
    lowest = {"a": ["good", "bad", "good"], "h": ["good", "good", "good"], "f": ["bad", "bad", "bad"]}
    result = measure(outputs, audits, baseline, {"bad"}, lowest=lowest)
    assert (result["flagged"], result["benign"], result["top5_from_true_source"]) == (1, 0, 1.0)
    assert result["hard"] == {
        "outputs": 1,
        "top5_from_true_source": pytest.approx(0.2),
        "bm25_top5_from_true_source": pytest.approx(0.2),
    }
    assert (result["opponents_judged"], result["opponents_from_true_source"]) == (
        6,
        pytest.approx(1 / 6, abs=1e-4),
    )
    assert result["positive_influence_of_true_source"] == pytest.approx(5 / 6, abs=1e-4)
    assert (result["foreign"], result["foreign_not_supported"]) == (2, 1)
    ((behaviour, figures),) = by_behaviour(outputs, audits, baseline).items()
    assert behaviour == "reason hard"
    assert figures == pytest.approx((1, 0.2, 0.2))


def test_the_lowest_rows_are_judged_whatever_their_sign():
    """Three of the whole corpus for each output, lowest first, positive ones included."""
    scores = np.array([[0.4, 0.3, 0.1, 0.2], [-0.5, 0.0, 0.1, -0.6]], dtype=np.float32)
    assert lowest_sources(scores, ["a", "b", "c", "d"]) == [["c", "d", "b"], ["d", "a", "b"]]
