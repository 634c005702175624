"""How an audit was computed, and what its bundle's card says about trust: a few short facts for one line of the page. No HTML, no SQL."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from web.drawing.card import calibrated, not_learned
from web.drawing.display import count, duration
from wherefrom.records import AuditDetail, BundleInfo

#: Figures of a card that tell how far to trust a citation, first one wins: name, what stands before the number.
_TRUST = (
    ("recall@1, order shown", "first citation right"),
    ("recall@10, order shown", "cause among the first ten"),
    ("LDS, effect head", "LDS"),
)


@dataclass(frozen=True)
class Fact:
    """One fact of the line."""

    label: str
    text: str
    meaning: str = ""
    link: str = ""


def computed_facts(detail: AuditDetail, bundle: BundleInfo | None) -> tuple[Fact, ...]:
    """What the line says of an answered audit."""
    return tuple(_facts(detail, bundle))


def _facts(detail: AuditDetail, bundle: BundleInfo | None) -> Iterator[Fact]:
    if bundle is not None:
        page = f"/bundles/{quote(bundle.name, safe='')}"
        yield Fact("Bundle", bundle.name, "Everything that turned the output into citations", page)
        yield Fact(
            "Method", f"{bundle.form} over {count(bundle.corpus_examples)} examples", "Form of the kernel"
        )
    if detail.candidates is not None:
        took = "" if detail.seconds is None else f" in {duration(detail.seconds)}"
        yield Fact(
            "Scored exactly",
            f"{count(detail.candidates)}{took}",
            "Candidates whose influence was computed exactly",
        )
    if detail.tokens is not None:
        yield Fact("Explained", f"{count(detail.tokens)} tokens", "Tokens of the output")
    if detail.noise_level is not None:
        yield Fact("Noise", f"±{detail.noise_level:.3f}", "Influence scores between these have no sign")
    if detail.finding_id is not None:
        where = f"/findings/{detail.finding_id}"
        yield Fact("Finding", str(detail.finding_id), "Outputs that say the same kind of thing", where)
    if bundle is not None:
        yield Fact("Calibrated", calibration_text(bundle.card), "Whether the bundle says how sure it is")
        yield Fact("Card", trust_text(bundle.card), "What was measured of this bundle", page)


def calibration_text(card: Mapping[str, Any]) -> str:
    """Whether the bundle states how sure it is, and where it abstains."""
    if not_learned(card) is not None:
        return "the model has not learned this corpus"
    if not calibrated(card):
        return "no"
    level = card["calibration"].get("level")
    return f"yes, abstains above {100 * level:g} %" if isinstance(level, int | float) else "yes"


def trust_text(card: Mapping[str, Any]) -> str:
    """The card's figure that tells most about its citations, with its interval; that there is none where nobody measured it."""
    quality = card.get("quality")
    measures = quality.get("measures") if isinstance(quality, Mapping) else None
    if isinstance(measures, Mapping):
        for name, words in _TRUST:
            if isinstance(measures.get(name), Mapping) and "value" in measures[name]:
                return _estimate(words, measures[name])
    return "quality not measured"


def _estimate(words: str, found: Mapping[str, Any]) -> str:
    is_share = words != "LDS"

    def shown(value: Any) -> str:
        return f"{100 * float(value):.0f}" if is_share else f"{float(value):.2f}"

    interval = found.get("interval")
    between = ""
    if isinstance(interval, list) and len(interval) == 2:
        between = f" ({shown(interval[0])} to {shown(interval[1])})"
    return f"{words} {shown(found['value'])}{' %' if is_share else ''}{between}"
