"""What an audit found, in one plain sentence that is never more certain than the numbers behind it.

The page, the API and the command line say the same. Each rule can only take certainty away: a sentence says *probably* where the audit is calibrated and supported, the output is like
those of the calibration, and the confidence of each training example that it names is at least even; it says *measured* where the model was trained again.
"""

import math
from collections import Counter
from collections.abc import Sequence

from wherefrom.records.audits import AuditDetail, AuditState, CitationRecord
from wherefrom.records.conclusion import Conclusion, Strength
from wherefrom.records.measurements import MeasurementRecord, MeasurementState

#: An audit is strong up to this conformal p, and its output counts as unlike the calibration below this novelty p.
STRONG_P = NOVEL_P = 0.05
#: From this confidence on a training example probably taught the output.
LIKELY = 0.5
#: Standard errors from the controls that a measured effect needs.
MEASURED_Z = 1.96
#: Sources that a sentence names, most citations first.
NAMED_SOURCES = 2
#: Citations that are named where nobody knows which ones stand out.
NAMED_UNKNOWN = 3
_NONE_SPEAKS = "None of the cited training examples clearly speaks for this output."


def conclusion_of(detail: AuditDetail) -> Conclusion | None:
    """What an audit found; None while it has no answer."""
    if not detail.audit.state.is_answered:
        return None
    if not detail.citations:
        return Conclusion(
            strength=Strength.NOT_SUPPORTED,
            text="No training example is cited.",
            because="The engine found none.",
        )
    if (effect := _proven(detail)) is not None:
        return _measured(detail, effect)
    if detail.audit.state is AuditState.ABSTAINED:
        return Conclusion(
            strength=Strength.NOT_SUPPORTED,
            text="No training example is supported as the cause of this output.",
            because=_sentence(detail.audit.reason or "The engine abstains"),
        )
    if detail.audit.conformal_p is None:
        return _not_calibrated(detail)
    return _calibrated(detail)


def doubts_sign(one: CitationRecord) -> bool:
    """Whether the influence of a citation does not speak for it: it is negative, unknown, or that of noise."""
    return one.influence_score is None or one.influence_score <= 0 or one.sign_determined is False


def _proven(detail: AuditDetail) -> MeasurementRecord | None:
    """The largest effect of a citation that a new training showed beyond its controls."""
    cited = {one.rank for one in detail.citations}
    shown = [one for one in detail.measurements if one.rank in cited and _is_proof(one)]
    return max(shown, key=lambda one: one.effect_nats or 0.0, default=None)


def _is_proof(one: MeasurementRecord) -> bool:
    return (
        one.state is MeasurementState.DONE
        and not one.weak
        and bool(one.controls)
        and (one.low_nats or 0.0) > 0
        and (one.z or 0.0) > MEASURED_Z
    )


def _refuted(detail: AuditDetail) -> set[int]:
    """Ranks of citations whose measured effect cannot be told from none."""
    done = [one for one in detail.measurements if one.state is MeasurementState.DONE and not one.weak]
    return {one.rank for one in done if not _is_proof(one)}


def _measured(detail: AuditDetail, effect: MeasurementRecord) -> Conclusion:
    cited = next(one for one in detail.citations if one.rank == effect.rank)
    alike = len(effect.group) - 1
    what = "training example" if alike < 1 else f"training example and {alike} that say nearly the same,"
    return Conclusion(
        strength=Strength.MEASURED,
        text=f"Trained again without one {what} from {cited.source}, the model found this output less likely.",
        because=f"Measured {effect.effect_nats:+.4f} nats per token (95 % {effect.low_nats:+.4f} to {effect.high_nats:+.4f}) over {effect.seeds} seeds, "
        f"{effect.z:.1f} standard errors from the controls. It is one cause; there may be others.",
        ranks=(effect.rank,),
    )


def _not_calibrated(detail: AuditDetail) -> Conclusion:
    """Where the citations come from, without a word about how likely that is."""
    if detail.audit.members is not None:
        because = "No calibration judges several outputs at once; open one of them."
    else:
        because = "This bundle is not calibrated, so nobody knows how often such citations are right."
    if detail.audit.weak:
        because = f"They may be chance: no influence score is above that of unrelated examples. {because}"
    first = [one for one in detail.citations if not doubts_sign(one)]
    return Conclusion(
        strength=Strength.NOT_CALIBRATED,
        text=f"{_most(first)}. That is a lead, not a proof." if first else _NONE_SPEAKS,
        because=because,
        ranks=tuple(one.rank for one in first),
    )


def _calibrated(detail: AuditDetail) -> Conclusion:
    refuted = _refuted(detail)
    speaking = [one for one in detail.citations if not doubts_sign(one) and one.rank not in refuted]
    likely = [one for one in speaking if (one.confidence or 0.0) >= LIKELY]
    doubt = _doubt_of_audit(detail)
    if doubt is None and likely:
        said = [one.confidence or 0.0 for one in likely]
        return Conclusion(
            strength=Strength.STRONG,
            text=f"{_counted(likely)} probably taught this.",
            because=f"{_confidences(said)}; {_passed(detail)}. Nothing was measured on this output.",
            ranks=tuple(one.rank for one in likely),
        )
    named = likely or _above_noise(detail, speaking)
    return Conclusion(
        strength=Strength.SUPPORTED if doubt is None and named else Strength.WEAK,
        text=f"{_counted(named)} may have taught this." if named else _NONE_SPEAKS,
        because=doubt or _why_not_likely(detail, refuted),
        ranks=tuple(one.rank for one in named),
    )


def _above_noise(detail: AuditDetail, speaking: Sequence[CitationRecord]) -> list[CitationRecord]:
    """Citations with more influence than the best of as many unrelated examples may reach; the first ones where that is not known."""
    if detail.noise_best is None or detail.audit.weak:
        return list(speaking[:NAMED_UNKNOWN])
    return [one for one in speaking if (one.influence_score or 0.0) > detail.noise_best]


def _why_not_likely(detail: AuditDetail, refuted: set[int]) -> str:
    """Why no single example is called likely, although the audit as a whole is supported."""
    if refuted:
        return "What was measured so far cannot be told from no effect."
    if all(one.confidence is None for one in detail.citations):
        return f"{_passed(detail)}. This bundle states no confidence of single examples."
    best = max((one.confidence or 0.0 for one in detail.citations), default=0.0)
    return f"{_passed(detail)}, but no single example is likely: the highest confidence is {_floor_percent(best)} %."


def _doubt_of_audit(detail: AuditDetail) -> str | None:
    """Why nothing that the audit cites can be called likely."""
    audit = detail.audit
    if audit.weak:
        return "It may be chance: no influence score is above what the best of as many unrelated examples may reach."
    if (audit.conformal_p or 0.0) > STRONG_P:
        return f"{_passed(detail)}."
    if audit.novelty_p is not None and audit.novelty_p < NOVEL_P:
        return (
            "This output is unlike those on which the bundle was calibrated, so its confidences may not hold."
        )
    return None


def _passed(detail: AuditDetail) -> str:
    share = 100 * (detail.audit.conformal_p or 0.0)
    return f"{share:.2g} % of outputs without a cause in the corpus get an equally good first citation"


def _confidences(said: Sequence[float]) -> str:
    low, high = _floor_percent(min(said)), _floor_percent(max(said))
    return f"Confidence {low} %" if low == high else f"Confidence {low} to {high} % each"


def _floor_percent(confidence: float) -> int:
    """Whole percent, never rounded up: 99.6 % is not certainty."""
    return math.floor(100 * confidence)


def _counted(named: Sequence[CitationRecord]) -> str:
    """How many training examples of which sources, as the beginning of a sentence."""
    counts = Counter(one.source for one in named).most_common()
    first, *rest = [f"{number} from {source}" for source, number in counts[:NAMED_SOURCES]]
    number, _, source = first.partition(" from ")
    told = [f"{number} training example{'s' if number != '1' else ''} from {source}", *rest]
    if others := sum(number for _, number in counts[NAMED_SOURCES:]):
        told.append(f"{others} from other sources")
    return " and ".join(told) if len(told) < 3 else f"{', '.join(told[:-1])} and {told[-1]}"


def _most(citations: Sequence[CitationRecord]) -> str:
    (source, number), *_ = Counter(one.source for one in citations).most_common(1)
    of = "1 citation" if len(citations) == 1 else f"{len(citations)} citations"
    verb = "comes" if number == 1 else "come"
    return f"{number} of {of} whose influence speaks for this output {verb} from {source}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
