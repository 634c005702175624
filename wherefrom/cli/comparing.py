"""`wherefrom compare`: two audits side by side, or two bundles over all outputs that were audited under both."""

from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.audit_view import print_heading
from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.client import Service
from wherefrom.records import (
    BundleComparison,
    ComparedCitation,
    ComparedOutput,
    Comparison,
    ComparisonSummary,
)
from wherefrom.terminal import err, out, print_table, visible

#: Sources that a terminal shows, those whose blame moved most.
SOURCES_SHOWN = 15


def compare(
    audit_id: Annotated[
        int | None, typer.Argument(min=1, metavar="AUDIT_ID", help="Audit of the flagged output.")
    ] = None,
    other: Annotated[
        int | None, typer.Argument(min=1, metavar="OTHER_AUDIT_ID", help="The other audit.")
    ] = None,
    *,
    bundles: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Names of two bundles: compare them over all outputs that were audited under both.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, help="With --bundles: most outputs to list, the largest change first.")
    ] = 20,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the citations of two audits side by side, or what changed between two bundles: what stayed, is gone, and came.

    Ranks compare. Scores compare only within one audit. Rows of two corpora are matched by their content. `bulk reaudit` audits outputs under another bundle.

    Examples:
      wherefrom compare 17 93

      wherefrom compare --bundles support-7 support-8
    """
    if bundles is not None:
        if audit_id is not None:
            raise typer.BadParameter("give two audits or two bundles, not both", param_hint="--bundles")
        _compare_bundles(bundles, limit=limit, url=url, as_json=as_json)
        return
    if audit_id is None or other is None:
        raise typer.BadParameter("give two audits, or two bundles by --bundles", param_hint="AUDIT_ID")
    with Service(url) as service:
        found = service.compare(audit_id, other)
    if as_json:
        print_json([found])
        return
    _print_comparison(found)


def _compare_bundles(bundles: tuple[str, str], *, limit: int, url: str | None, as_json: bool) -> None:
    with Service(url) as service:
        found = service.compare_bundles(*bundles)
        outputs = list(islice(service.compared_outputs(*bundles, page_size=min(limit, 200) or 1), limit))
    if as_json:
        print_json(
            [found.model_dump(mode="json") | {"outputs": [one.model_dump(mode="json") for one in outputs]}]
        )
    elif found.summary is not None:
        _print_summary(found, found.summary, outputs)
    if found.progress is not None:
        err().print(
            f"still being compared, {found.progress} outputs so far; run it again for the newest answers"
        )
    if found.unanswered:
        err().print(f"{found.unanswered} audits of outputs under both bundles wait or are worked on")


def _print_summary(found: BundleComparison, total: ComparisonSummary, outputs: list[ComparedOutput]) -> None:
    print_heading(
        f"{found.bundle} ({found.model}) beside {found.other_bundle} ({found.other_model}): {total.outputs} outputs"
    )
    if not total.outputs:
        out().print(
            Text(
                f"no output is answered under both; next: wherefrom bulk reaudit --bundle {visible(found.bundle)} --under {visible(found.other_bundle)}"
            )
        )
        return
    print_table(
        [("", "left"), ("", "right")],
        [(name, value) for name, value in _figures(total)],
        empty="",
    )
    shifts = [
        (one.source, str(one.first), str(one.other_first), f"+{one.gained} -{one.lost}", number(one.q), str(one.citations), str(one.other_citations))
        for one in total.sources[:SOURCES_SHOWN]
    ]  # fmt: skip
    names = ("first before", "after", "change", "q", "citations before", "after")
    print_table(
        [("source", "left"), *((name, "right") for name in names)], shifts, empty="no source is cited"
    )
    if outputs:
        columns = [("moved", "right"), ("audits", "left"), ("stayed", "right"), ("went", "right"), ("came", "right"), ("first source", "left"), ("flagged for", "left"), ("output", "left")]  # fmt: skip
        print_table(columns, [_output_row(one) for one in outputs], empty="")


def _figures(total: ComparisonSummary) -> list[tuple[str, str]]:
    def of_all(count: int) -> str:
        return f"{count} ({count / total.outputs:.0%})"

    figures = [
        ("another first citation", of_all(total.top_changed)),
        ("another first source", of_all(total.source_changed)),
        ("citations stayed, went, came", f"{total.stayed}, {total.gone}, {total.came}"),
        ("strength that went elsewhere, mean", f"{total.mean_moved:.0%}"),
    ]
    if total.loss_nats is not None and total.other_loss_nats is not None:
        losses = f"{total.loss_nats:.3f} -> {total.other_loss_nats:.3f}"
        figures.append((f"mean loss of {total.loss_outputs} outputs, nats per token", losses))
    figures += [
        (f"{one.before.value} before, {one.after.value} after", of_all(one.outputs)) for one in total.support
    ]
    return figures


def _output_row(one: ComparedOutput) -> tuple[str | Text, ...]:
    sources = dict.fromkeys(name or "-" for name in (one.top_source, one.other_top_source))
    return (
        f"{one.moved:.0%}", f"{one.audit_id} {one.other_audit_id}", str(one.stayed), str(one.gone), str(one.came),
        " -> ".join(sources), one.flag_reason, one_line(one.excerpt, length=60),
    )  # fmt: skip


def _print_comparison(found: Comparison) -> None:
    told = ", ".join(f"{found.count(change)} {change}" for change in ("stayed", "gone", "came"))
    bundles = "" if found.same_bundle else "; the audits are of different bundles"
    print_heading(f"Audit {found.audit_id} beside {found.other_audit_id}: {told}{bundles}")
    columns = [
        (f"rank in {found.audit_id}", "right"), ("influence", "right"), (f"rank in {found.other_audit_id}", "right"), ("influence", "right"),
        ("change", "left"), ("source", "left"), ("example", "left"), ("text", "left"),
    ]  # fmt: skip
    print_table(
        columns, [_row(one) for one in found.citations], empty="neither audit cites a training example"
    )


def _row(one: ComparedCitation) -> tuple[str | Text, ...]:
    ranks = ["-" if rank is None else str(rank) for rank in (one.rank, one.other_rank)]
    return (
        ranks[0], number(one.influence_score), ranks[1], number(one.other_influence_score),
        one.change, one.source, one.example_id, one_line(one.completion, length=80),
    )  # fmt: skip
