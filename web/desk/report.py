"""What a report shows: each audit as its page does, and of an incident what its audits have in common. No SQL, no HTML."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from db.reading.blame import period_edges
from web.asking.reviewed import FoundView
from web.desk.audit_pages import missing_reasons
from web.desk.computed import Fact, computed_facts
from web.drawing import effects, evidence
from web.drawing.effects import CitationEffects, EffectView
from web.drawing.evidence import CitationView
from web.drawing.folding import Fold, folded
from web.drawing.lit import LitPiece, lit_output
from web.drawing.plots import ScorePlot, TimePlot, score_plot, time_plot
from web.drawing.shorten import Part
from wherefrom.records import AuditDetail, BundleInfo, CitationRecord, GroupMeasurementRecord

#: Training examples that stand out in an incident.
CULPRITS = 20


@dataclass(frozen=True)
class ReportedAudit:
    """One audit of a report."""

    detail: AuditDetail
    completion: tuple[LitPiece, ...]
    turns: tuple[evidence.TurnView, ...]
    turns_skipped: int
    folds: tuple[Fold, ...]
    opponents: tuple[CitationView, ...]
    effects: dict[int, CitationEffects]
    groups: tuple[EffectView[GroupMeasurementRecord], ...]
    computed: tuple[Fact, ...]
    plot: ScorePlot | None
    missing: tuple[tuple[str, str], ...]
    found: FoundView
    #: Some text of it is cut.
    shortened: bool


@dataclass(frozen=True)
class Blamed:
    """A training example that audits of the incident cite."""

    citation: CitationRecord
    outputs: int
    first_citations: int
    strength: float


@dataclass(frozen=True)
class Incident:
    """What several audits have in common."""

    states: tuple[tuple[str, int], ...]
    conclusions: tuple[tuple[str, int], ...]
    #: Source, outputs whose first citation comes from it, and outputs that cite it.
    sources: tuple[tuple[str, int, int], ...]
    plot: TimePlot | None
    culprits: tuple[Blamed, ...]


def reported(detail: AuditDetail, bundle: BundleInfo | None, found: FoundView) -> ReportedAudit:
    """One audit, ready for a report."""
    completion = lit_output(detail.completion, detail.citations, detail.spans)
    skipped, turns = evidence.turn_views(detail.turns)
    citations, opponents = evidence.citation_views(detail)
    ranks = [one.rank for one in (*detail.citations, *detail.opponents)]
    shown: tuple[Sequence[Part], ...] = (
        completion,
        *(one.content for one in turns),
        *(one.completion for one in citations),
    )
    return ReportedAudit(
        detail=detail,
        completion=completion,
        turns=turns,
        turns_skipped=skipped,
        folds=folded(citations),
        opponents=opponents,
        effects=effects.effects_by_rank(detail.measurements, ranks),
        groups=tuple(effects.group_view(one) for one in detail.group_measurements),
        computed=computed_facts(detail, bundle),
        plot=score_plot(detail),
        missing=tuple(missing_reasons(detail)) if citations else (),
        found=found,
        shortened=bool(skipped) or evidence.is_shortened(*shown),
    )


def incident_of(details: Sequence[AuditDetail]) -> Incident | None:
    """What audits have in common; None of fewer than two."""
    if len(details) < 2:
        return None
    received = [(one.audit.created_at, one.audit.top_source) for one in details]
    times = [at for at, _ in received]
    first = Counter(one.audit.top_source for one in details if one.audit.top_source)
    cites = Counter(source for one in details for source in {each.source for each in one.citations})
    return Incident(
        states=tuple(Counter(one.audit.state.value for one in details).most_common()),
        conclusions=tuple(
            Counter(one.conclusion.strength.label for one in details if one.conclusion).most_common()
        ),
        sources=tuple((name, first[name], number) for name, number in cites.most_common()),
        plot=time_plot(received, period_edges(min(times), max(times))),
        culprits=_culprits(details),
    )


def _culprits(details: Sequence[AuditDetail]) -> tuple[Blamed, ...]:
    """Training examples by strength, as on the board: a citation counts 1 / rank. Groups of outputs do not count."""
    cited: dict[int, list[CitationRecord]] = defaultdict(list)
    for detail in details:
        for one in detail.citations if detail.audit.members is None else ():
            cited[one.training_example_id].append(one)
    made = [
        Blamed(
            citation=found[0],
            outputs=len(found),
            first_citations=sum(one.rank == 1 for one in found),
            strength=sum(1 / one.rank for one in found),
        )
        for found in cited.values()
    ]
    made.sort(key=lambda one: (-one.strength, -one.outputs, one.citation.training_example_id))
    return tuple(made[:CULPRITS])
