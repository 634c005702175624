"""Holds a citation that was computed again against the one that was stored.

The same bundle, model and output give the same scores up to rounding: passes pack other outputs beside it, so sums are made over other shapes and in another order, and so do other
numbers of threads and other releases of the libraries. In float32 that is far below what `ALLOWED` lets pass; in bfloat16 the pass itself keeps eight bits. `score` is
standardised over the candidates, which makes it the most sensitive of the scores, and it has no larger allowance.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherefrom.attribution.interface import Attributor, PreparedQuery
from wherefrom.errors import ConfigurationError, NotFound
from wherefrom.records import Attribution, AuditDetail, CitationDraft, CitationRecord
from wherefrom.records.lineage import CitationAddress, ComparedScore, Reproduced, Reproduction

#: By the numbers of the pass: how far two computations of one score may lie apart, as a share of the score and beside it.
ALLOWED = {"float32": (1e-3, 1e-3), "bfloat16": (5e-2, 5e-2)}
#: The scores of a citation that a bundle computes, as both records name them.
SCORES = (
    "score",
    "retrieval_score",
    "influence_score",
    "influence_magnitude",
    "bm25_score",
    "similarity_score",
    "encoder_score",
    "effect_score",
    "ekfac_score",
    "effect_nats",
    "confidence",
)
#: What may differ between two computations of the same numbers without a word.
_NO_MATTER = frozenset({"threads", "device"})


def ask_again(attributor: Attributor, prepared: PreparedQuery, detail: AuditDetail) -> Attribution:
    """The answer, with as many citations and opponents as are stored."""
    (answer,) = attributor.attribute(
        [prepared], top_k=max(1, len(detail.citations)), opponents=len(detail.opponents)
    )
    return answer


def compare(
    address: CitationAddress,
    stored: CitationRecord,
    answer: Attribution,
    *,
    bundle: str,
    then: Mapping[str, Any] | None,
    now: Mapping[str, Any],
) -> Reproduction:
    """What came out, beside what is stored.

    Args:
        address: the citation.
        stored: as it is in the database.
        answer: of the same bundle to the same output, now.
        bundle: its name.
        then: what the audit was computed with; None where that was not kept.
        now: what the answer was computed with.
    """
    found = next((one for one in answer.citations if one.example.example_id == stored.example_id), None)
    scores = tuple(_compared(stored, found, allowed=_allowed(then, now)))
    other = other_parts(then, now)
    changed = [one for one in scores if one.differs]
    return Reproduction(
        audit_id=address.audit_id,
        rank=stored.rank,
        example_id=stored.example_id,
        verdict=Reproduced.DIFFERENT if changed or found is None else Reproduced.SAME,
        text=_text(scores, changed, found, other),
        rank_now=None if found is None else found.rank,
        scores=scores,
        bundle=bundle,
        computed_with=None if then is None else dict(then),
        computing_with=dict(now),
        other=other,
    )


def other_parts(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[str, ...]:
    """Which versions and settings are others than then, in words."""
    if then is None:
        return ("the audit does not say what it was computed with, because an earlier release answered it",)
    names = sorted((then.keys() | now.keys()) - _NO_MATTER)
    return tuple(
        f"{name} was {then.get(name, 'not told')}, is {now.get(name, 'not told')}"
        for name in names
        if then.get(name) != now.get(name)
    )


def _allowed(then: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[float, float]:
    """The wider of the two allowances."""
    names = [now.get("dtype", "float32"), (then or now).get("dtype", "float32")]
    return max(ALLOWED.get(name, ALLOWED["bfloat16"]) for name in names)


def _compared(
    stored: CitationRecord, found: CitationDraft | None, *, allowed: tuple[float, float]
) -> Iterator[ComparedScore]:
    share, beside = allowed
    for name in SCORES:
        before = getattr(stored, name)
        if before is not None:
            now = None if found is None else getattr(found, name)
            yield ComparedScore(name=name, stored=before, now=now, allowed=beside + share * abs(before))


def _text(
    scores: Sequence[ComparedScore],
    changed: Sequence[ComparedScore],
    found: CitationDraft | None,
    other: Sequence[str],
) -> str:
    told = f" Beware: {'; '.join(other)}." if other else ""
    if found is None:
        return f"The bundle does not cite this training example for the output any more.{told}"
    if changed:
        listed = ", ".join(_change(one) for one in changed)
        return f"Other scores came out: {listed}. Rounding explains at most what is allowed.{told}"
    apart = [one for one in scores if one.now is not None]
    worst = max(apart, key=lambda one: abs((one.now or 0.0) - one.stored) / one.allowed)
    far = abs((worst.now or 0.0) - worst.stored)
    return f"All {len(scores)} scores came out again; the farthest apart is {worst.name}, by {far:.2g} of {worst.allowed:.2g} allowed for rounding.{told}"


def _change(one: ComparedScore) -> str:
    if one.now is None:
        return f"{one.name} was {one.stored:.6g} and is empty"
    return f"{one.name} was {one.stored:.6g} and is {one.now:.6g}, {abs(one.now - one.stored):.2g} apart ({one.allowed:.2g} allowed)"


def citation_of(detail: AuditDetail, address: CitationAddress) -> CitationRecord:
    """The citation that an address names.

    Raises:
        NotFound: the audit has none of this rank, or no answer.
    """
    found = next((one for one in (*detail.citations, *detail.opponents) if one.rank == address.rank), None)
    if found is None:
        raise NotFound(
            f"audit {address.audit_id} ({detail.audit.state.value}) has no citation of rank {address.rank}"
        )
    return found


def check_engine(then: Mapping[str, Any] | None, engine: str) -> None:
    """Refuse to hold the scores of two engines against each other.

    Raises:
        ConfigurationError: another engine answered.
    """
    answered = engine if then is None else then.get("engine", engine)
    if answered != engine:
        raise ConfigurationError(
            f"the audit was answered by the engine {answered}, and this process has {engine}; set WHEREFROM_ENGINE as it was then"
        )


def erased(
    address: CitationAddress,
    stored: CitationRecord,
    bundle: str,
    *,
    then: Mapping[str, Any] | None,
    gone: str = "The text of the flagged output",
) -> Reproduction:
    """What is said where something that is needed is gone: the output's text, the training example's, or the bundle with it."""
    return Reproduction(
        audit_id=address.audit_id,
        rank=stored.rank,
        example_id=stored.example_id,
        verdict=Reproduced.ERASED,
        text=f"{gone} was erased, so nothing can be computed from it. The stored scores stand as they are.",
        bundle=bundle,
        computed_with=None if then is None else dict(then),
    )
