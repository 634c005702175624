"""How the command line shows one audit: the flagged output, its citations, and what stands behind each."""

from collections.abc import Callable, Iterator, Sequence

from rich.text import Text

from wherefrom.cli.output import influence, many_lines, note_signs, number, one_line
from wherefrom.records import (
    AuditDetail,
    AuditState,
    AuditSummary,
    CitationRecord,
    Span,
    weak_text,
)
from wherefrom.terminal import counted, out, print_table, visible

#: Stretches of text that are shown per citation, strongest first; `--json` has all of them.
SHOWN_SPANS = 3
#: Blocks, and kinds of layers, of one citation.
SHOWN_PARTS = 4

#: Citations of a group whose influence on each output is shown.
SHOWN_CITATIONS = 3

#: Why an audit that was not answered has none.
NO_CITATIONS = {
    AuditState.PENDING: "it waits for a worker",
    AuditState.RUNNING: "a worker is computing them",
    AuditState.ABSTAINED: "it abstains",
    AuditState.REJECTED: "the output cannot be audited",
    AuditState.DEAD: "every attempt failed; to retry: python -m worker retry ID",
}

#: Columns that are shown only where some citation has a value.
_OPTIONAL: tuple[tuple[str, Callable[[CitationRecord], float | None]], ...] = (
    ("encoder", lambda one: one.encoder_score),
    ("ekfac", lambda one: one.ekfac_score),
    ("effect", lambda one: one.effect_nats),
    ("confidence", lambda one: one.confidence),
    ("measured", lambda one: one.measured_effect_nats),
)


def print_audit(detail: AuditDetail) -> None:
    """Print one audit whole."""
    _print_output(detail)
    _print_conclusion(detail)
    if detail.audit.state is AuditState.ABSTAINED and detail.citations:
        _print_citations("Citations, NOT SUPPORTED: the audit abstains", detail.citations)
    elif detail.audit.state is AuditState.DONE:
        _print_citations("Citations", detail.citations)
    else:
        print_heading(f"No citations: {NO_CITATIONS[detail.audit.state]}")
    _print_evidence(detail)
    _print_modules(detail)
    if detail.opponents:
        _print_citations("Opponents", detail.opponents)


def print_heading(text: str) -> None:
    """A bold line with a blank one before it."""
    out().print(Text(f"\n{visible(text)}", style="bold"))


def state_of(audit: AuditSummary) -> str:
    """The state with its code, where it has one."""
    return f"{audit.state.value} ({audit.code})" if audit.code else audit.state.value


def _print_output(detail: AuditDetail) -> None:
    audit = detail.audit
    print_heading(f"Audit {audit.audit_id}: {state_of(audit)}")
    facts = [
        f"flagged for {audit.flag_reason} ({audit.severity.value}), model {audit.model}, key {detail.idempotency_key}",
        f"bundle {audit.bundle or '-'}",
    ]
    if detail.loss_nats is not None:
        cut = ", cut at the token limit" if audit.truncated else ""
        facts[-1] += f", loss {number(detail.loss_nats)} nats over {detail.tokens or '-'} tokens{cut}"
    if audit.conformal_p is not None:
        facts.append(
            f"conformal p {audit.conformal_p:.3g}: share of control outputs with an equally good best citation"
        )
    if audit.novelty_p is not None:
        facts.append(f"novelty p {audit.novelty_p:.3g}: small means unlike the calibration outputs")
    if audit.weak:
        facts.append(weak_text(detail.noise_best))
    facts += _marks(detail)
    for fact in [*facts, *([audit.reason] if audit.reason else [])]:
        out().print(Text(visible(fact), style="dim"))
    for turn in detail.turns:
        print_heading(turn.role.value)
        out().print(many_lines(turn.content))
    if audit.members is None:
        print_heading("flagged output")
        out().print(many_lines(detail.completion or _gone(detail)))
    else:
        _print_members(detail)


def _marks(detail: AuditDetail) -> list[str]:
    """What an audit belongs to."""
    marks = [] if detail.group_audit_id is None else [f"part of group {detail.group_audit_id}"]
    if detail.hypothetical_of is not None:
        marks.append(
            f"hypothetical: nobody has said this; it stands in place of audit {detail.hypothetical_of}"
        )
    return marks


def _print_conclusion(detail: AuditDetail) -> None:
    """The plain sentence, and why it is no surer."""
    if detail.conclusion is not None:
        print_heading(f"{detail.conclusion.strength.label.capitalize()}: {detail.conclusion.text}")
        out().print(Text(visible(detail.conclusion.because), style="dim"))


def _print_members(detail: AuditDetail) -> None:
    """The outputs of a group, each with its own influence scores of the first citations."""
    against = f", against {counted(len(detail.against), 'acceptable answer')}" if detail.against else ""
    print_heading(f"{counted(len(detail.members), 'output')} as one question{against}")
    first = [one for one in detail.citations if one.member_influence][:SHOWN_CITATIONS]
    columns = [("audit", "right"), ("state", "left"), ("output", "left")]
    columns += [(f"influence of {one.rank}", "right") for one in first]
    rows = [
        (
            str(member.audit_id), member.state.value, one_line(member.excerpt, length=70),
            *(number(one.member_influence[place]) for one in first),
        )
        for place, member in enumerate(detail.members)
    ]  # fmt: skip
    print_table(columns, rows, empty="no output is left")


def _print_citations(heading: str, citations: Sequence[CitationRecord]) -> None:
    print_heading(heading)
    extra = [column for column in _OPTIONAL if any(column[1](one) is not None for one in citations)]
    columns = [
        ("rank", "right"), ("score", "right"), ("influence", "right"), ("similarity", "right"), ("bm25", "right"),
        *((name, "right") for name, _ in extra),
        ("tier", "left"), ("source", "left"), ("example", "left"), ("text", "left"),
    ]  # fmt: skip
    rows = [
        (
            str(one.rank), number(one.score), influence(one.influence_score, determined=one.sign_determined), number(one.similarity_score),
            number(one.bm25_score, digits=1), *(number(value(one)) for _, value in extra),
            one.tier.value, one.source, _example(one), one_line(_gone(one) or f"{one.prompt} -> {one.completion}", length=120),
        )
        for one in citations
    ]  # fmt: skip
    print_table(columns, rows, empty="no training example is cited")
    note_signs(one.sign_determined for one in citations)


def _gone(one: AuditDetail | CitationRecord) -> str:
    """What stands in the place of an erased text; empty where it is there."""
    if one.erased_at is None:
        return ""
    by = "" if one.erased_by is None else f" by {one.erased_by}"
    return f"(erased on {one.erased_at:%Y-%m-%d}{by})"


def _example(one: CitationRecord) -> str:
    return f"{one.example_id} (+{one.duplicates} alike)" if one.duplicates else one.example_id


def _print_evidence(detail: AuditDetail) -> None:
    """Which words carry the citations; nothing where no spans are stored or the text was erased."""
    rows = [row for one in detail.citations if detail.completion for row in _evidence_rows(detail, one)]
    if rows:
        print_heading("Text that carries the influence")
        columns = [("rank", "right"), ("what", "left"), ("in the output", "left"), ("in the example", "left")]
        print_table(columns, rows, empty="")


def _evidence_rows(detail: AuditDetail, one: CitationRecord) -> Iterator[tuple[Text | str, ...]]:
    for span in one.spans[:SHOWN_SPANS]:
        what = f"{100 * span.share:.0f} % of the positive influence"
        yield str(one.rank), what, _part(detail.completion, span.output), _part(one.completion, span.example)
    for same in one.overlaps[:1]:
        what = f"{same.tokens} tokens word for word"
        yield str(one.rank), what, _part(detail.completion, same.output), _part(one.completion, same.example)


def _print_modules(detail: AuditDetail) -> None:
    """Which blocks and kinds of layers carry the citations most; nothing where the bundle's form does not tell."""
    rows = [
        (str(one.rank), one.carried_by or "", _strongest(one, "block"), _strongest(one, "linear"))
        for one in detail.citations
        if one.modules
    ]
    if rows:
        print_heading("Parts of the model that carry the influence")
        columns = [("rank", "right"), ("carried by", "left"), ("blocks", "left"), ("linear layers", "left")]
        print_table(columns, rows, empty="")


def _strongest(one: CitationRecord, by: str) -> str:
    """The parts that go with the influence most, with what they add to it."""
    sign = -1.0 if (one.influence_score or 0.0) < 0 else 1.0
    parts = sorted((part for part in one.modules if part.by == by), key=lambda part: -sign * part.influence)
    return ", ".join(f"{part.name} {part.influence:+.3f}" for part in parts[:SHOWN_PARTS])


def _part(text: str, span: Span) -> Text:
    return one_line(text[span.start : span.end], length=60)
