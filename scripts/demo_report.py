"""What the demo found, measured against what the demo knows: the true source of each flagged output."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts.demo_outputs import DemoOutput
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.records import AuditDetail, AuditState

TOP = 5


#: Rows of the whole corpus with the lowest influence on an output that are judged, whatever their sign.
LOWEST = 3


def lowest_sources(scores: npt.NDArray[np.float32], sources: Sequence[str]) -> list[list[str]]:
    """Sources of the rows with the lowest influence on each output, of the whole corpus and before any rule of display.

    Args:
        scores: influence of every row on every output, `[Q, N]`.
        sources: source of each row.
    """
    return [[sources[row] for row in np.argsort(one, kind="stable")[:LOWEST]] for one in scores]


@dataclass(frozen=True)
class Baseline:
    """BM25 alone, over the whole corpus, for prompt and completion as the engine uses them."""

    #: Source of every training example.
    sources: tuple[str, ...]
    #: Sources of the best rows by probe.
    top: dict[str, list[str]]

    @classmethod
    def of(cls, outputs: Sequence[DemoOutput], bundle: Path) -> "Baseline":
        """Ask the bundle's own lexical index."""
        sources = tuple(example.source for example in iter_examples(bundle))
        index = LexicalIndex.load(bundle / "lexical")
        top = {}
        for one in outputs:
            prompt = "\n".join(message["content"] for message in one.messages if message["role"] != "system")
            scores = index.scores(f"{prompt}\n{one.completion}")
            top[one.probe] = [sources[row] for row in np.argsort(-scores, kind="stable")[:TOP]]
        return cls(sources, top)


def measure(
    outputs: Sequence[DemoOutput],
    audits: Mapping[str, AuditDetail],
    baseline: Baseline,
    bad_sources: set[str],
    *,
    lowest: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The demo's closing figures.

    Args:
        outputs: what was flagged.
        audits: finished audits by probe.
        baseline: what BM25 alone finds.
        bad_sources: sources that teach bad behaviour.
        lowest: by probe, the sources of the rows with the lowest influence on it (`lowest_sources`).
    """
    flagged = [one for one in outputs if one.kind == "aimed"]
    hard = [one for one in outputs if one.kind == "hard"]
    benign = [one for one in outputs if one.kind == "benign"]
    foreign = [one for one in outputs if one.kind == "foreign"]
    states = Counter(audit.audit.state for audit in audits.values())
    counts, total = Counter(baseline.sources), len(baseline.sources)
    benign_tops = [top for one in benign if (top := _top_sources(audits.get(one.probe)))]
    opponents = [
        source == one.true_source for one in (*flagged, *hard) for source in lowest.get(one.probe, ())
    ]
    return {
        "flagged": len(flagged),
        "benign": len(benign),
        "done": states[AuditState.DONE],
        "abstained": states[AuditState.ABSTAINED],
        "dead": states[AuditState.DEAD],
        "top5_from_true_source": _found(flagged, audits),
        "base_rate": _mean([counts[one.true_source or ""] / total for one in flagged]),
        "bm25_top5_from_true_source": _found_by_words(flagged, baseline),
        "benign_accused": _mean([float(top[0] in bad_sources) for top in benign_tops]),
        "hard": {
            "outputs": len(hard),
            "top5_from_true_source": _found(hard, audits),
            "bm25_top5_from_true_source": _found_by_words(hard, baseline),
        },
        "opponents_judged": len(opponents),
        "opponents_from_true_source": _mean([float(one) for one in opponents]),
        "positive_influence_of_true_source": _mean(_signs((*flagged, *hard), audits)),
        "foreign": len(foreign),
        "foreign_not_supported": sum(_not_supported(audits.get(one.probe)) for one in foreign),
    }


def by_behaviour(
    outputs: Sequence[DemoOutput], audits: Mapping[str, AuditDetail], baseline: Baseline
) -> dict[str, tuple[int, float, float]]:
    """Outputs, P@5 of the order shown, and P@5 of BM25 for each hard behaviour, by the reason of its flag."""
    reasons = sorted({one.reason for one in outputs if one.kind == "hard"})
    found = {reason: [one for one in outputs if one.reason == reason] for reason in reasons}
    return {
        reason: (len(some), _found(some, audits), _found_by_words(some, baseline))
        for reason, some in found.items()
    }


def _found(outputs: Sequence[DemoOutput], audits: Mapping[str, AuditDetail]) -> float:
    return _mean([_share(_top_sources(audits.get(one.probe)), one.true_source) for one in outputs])


def _found_by_words(outputs: Sequence[DemoOutput], baseline: Baseline) -> float:
    return _mean([_share(baseline.top[one.probe], one.true_source) for one in outputs])


def _signs(outputs: Sequence[DemoOutput], audits: Mapping[str, AuditDetail]) -> list[float]:
    """1 for each cited row of the true source with positive influence, else 0."""
    return [
        float((citation.influence_score or 0.0) > 0)
        for one in outputs
        if (audit := audits.get(one.probe)) is not None
        for citation in audit.citations
        if citation.source == one.true_source
    ]


def _not_supported(audit: AuditDetail | None) -> bool:
    return audit is not None and audit.audit.state is AuditState.ABSTAINED


def _top_sources(audit: AuditDetail | None) -> list[str]:
    return [] if audit is None else [citation.source for citation in audit.citations[:TOP]]


def _share(top: list[str], source: str | None) -> float:
    return sum(one == source for one in top) / TOP


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0
