"""The demo's closing lines: what was found, what to believe, and what not."""

from collections.abc import Mapping
from typing import Any

#: By the reason of the flag: outputs, P@5 of the order shown, P@5 of BM25.
ByBehaviour = Mapping[str, tuple[int, float, float]]
#: A lead over word overlap that is not worth a word.
_NO_LEAD = 0.02
#: A lead that two dozen outputs can show.
_CLEAR_LEAD = 0.15


def closing_text(result: Mapping[str, Any], behaviours: ByBehaviour, url: str) -> str:
    """The lines as one text.

    Args:
        result: the closing figures (`demo_report.measure`), and `seconds`.
        behaviours: the hard behaviours (`demo_report.by_behaviour`).
        url: address of the page.
    """
    parts = (
        [f"Finished after {result['seconds']:.0f} s.", ""],
        _found(result, behaviours),
        _beliefs(result),
        _next_steps(url),
    )
    return "\n" + "\n".join(line for part in parts for line in part)


def _found(result: Mapping[str, Any], behaviours: ByBehaviour) -> list[str]:
    easy, hard = result["top5_from_true_source"], result["hard"]
    return [
        "WHAT WAS FOUND",
        "First five citations of an output that come from the source that taught it:",
        f"  {'':<48}{'outputs':>8}{'wherefrom':>11}{'words (BM25)':>14}",
        _row(
            "four behaviours in words of their own",
            result["flagged"],
            easy,
            result["bm25_top5_from_true_source"],
        ),
        _row(
            "behaviours taught on one side, shown on another",
            hard["outputs"],
            hard["top5_from_true_source"],
            hard["bm25_top5_from_true_source"],
        ),
        *(_row(f"  {name}", *figures) for name, figures in behaviours.items()),
        f"By chance it would be {result['base_rate']:.0%}.",
        f"Of the cited rows of those sources, {result['positive_influence_of_true_source']:.0%} have positive influence.",
        f"Of the {result['opponents_judged']} rows with the lowest influence, {result['opponents_from_true_source']:.0%} come from them.",
        f"Harmless outputs whose first citation comes from a bad source: {result['benign_accused']:.0%} of {result['benign']}.",
        f"Outputs whose cause is not in the corpus: {result['foreign_not_supported']} of {result['foreign']} are shown as not supported.",
        "",
    ]


def _row(name: str, outputs: int, shown: float, words: float) -> str:
    return f"  {name:<48}{outputs:>8}{shown:>11.0%}{words:>14.0%}"


def _beliefs(result: Mapping[str, Any]) -> list[str]:
    hard = result["hard"]
    lead = hard["top5_from_true_source"] - hard["bm25_top5_from_true_source"]
    found = "Where an output repeats the words of what taught it, word overlap finds it too. "
    if lead >= _CLEAR_LEAD:
        words = found + "Where it does not, wherefrom finds more."
    elif lead > _NO_LEAD:
        words = f"{found}Where it does not, wherefrom leads by {lead:.0%}: {hard['outputs']} outputs cannot prove that."
    else:
        words = "On these outputs wherefrom names the source no better than word overlap does."
    return [
        "WHAT TO BELIEVE",
        "  A source that several outputs cite first: look there.",
        f"  {words}",
        "WHAT NOT TO BELIEVE",
        "  One citation alone. It is a lead, not a proof: nobody trained the model without that row.",
        "  The list of an output that is not supported. Some row is always nearest.",
        "  An opponent. It is a prediction too. docs/limitations.md says more.",
        "",
    ]


def _next_steps(url: str) -> list[str]:
    return [
        "Look at",
        f"  {url}/?state=done    all audits; filter them by reason, for example battery_danger",
        f"  {url}/?state=abstained    outputs without support",
        f"  {url}/sources        the data sources that are cited most for their size",
        "Try",
        f"  .venv/bin/wherefrom audits --url {url}",
        f"  .venv/bin/wherefrom sources --url {url}",
        f"  curl -s '{url}/v1/audits?flag_reason=refund_promise'",
    ]
