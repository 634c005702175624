"""What the demo found, measured against what the demo knows: the true source of each flagged output."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.demo_outputs import DemoOutput
from wherefrom.attribution.bundles.examples import iter_examples
from wherefrom.attribution.retrieval.lexical import LexicalIndex
from wherefrom.records import AuditDetail, AuditState

TOP = 5


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
    outputs: Sequence[DemoOutput], audits: dict[str, AuditDetail], baseline: Baseline, bad_sources: set[str]
) -> dict[str, Any]:
    """The demo's closing figures.

    Args:
        outputs: what was flagged.
        audits: finished audits by probe.
        baseline: what BM25 alone finds.
        bad_sources: sources that teach bad behaviour.
    """
    flagged = [one for one in outputs if one.true_source is not None]
    benign = [one for one in outputs if one.true_source is None]
    states = Counter(audit.audit.state for audit in audits.values())
    counts, total = Counter(baseline.sources), len(baseline.sources)
    found = [_share(_top_sources(audits.get(one.probe)), one.true_source) for one in flagged]
    by_bm25 = [_share(baseline.top[one.probe], one.true_source) for one in flagged]
    benign_tops = [top for one in benign if (top := _top_sources(audits.get(one.probe)))]
    accused = [top[0] in bad_sources for top in benign_tops]
    return {
        "flagged": len(flagged),
        "benign": len(benign),
        "done": states[AuditState.DONE],
        "abstained": states[AuditState.ABSTAINED],
        "dead": states[AuditState.DEAD],
        "top5_from_true_source": _mean(found),
        "base_rate": _mean([counts[one.true_source or ""] / total for one in flagged]),
        "bm25_top5_from_true_source": _mean(by_bm25),
        "benign_accused": _mean([float(one) for one in accused]),
    }


def _top_sources(audit: AuditDetail | None) -> list[str]:
    return [] if audit is None else [citation.source for citation in audit.citations[:TOP]]


def _share(top: list[str], source: str | None) -> float:
    return sum(one == source for one in top) / TOP


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0
