"""Commands that read a running service: audits, one audit, the reverse question, sources, the queue, bundles."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.audit_view import print_audit, print_heading, state_of
from wherefrom.cli.options import FdrOption, JsonOption, UrlOption, takes_filters
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.errors import NotFound
from wherefrom.records import AuditOrder, AuditSummary, CitedBy, ExampleDetail
from wherefrom.terminal import err, out, print_table, visible

LimitOption = Annotated[int, typer.Option("--limit", min=0, help="Most lines to print; 0 prints all.")]


@takes_filters
def audits(
    *,
    filters: AuditFilters,
    fdr: FdrOption = None,
    sort: Annotated[
        AuditOrder | None, typer.Option("--sort", help="Another order than newest first.")
    ] = None,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Only those received since your last visit to the page.")
    ] = False,
    count: Annotated[bool, typer.Option("--count", help="Only say how many match.")] = False,
    limit: LimitOption = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the audits that match all filters, newest first.

    --fdr marks the audits whose citations are better than those of control outputs as supported. At most that share of
    the supported audits is expected to be false. The guarantee is for outputs like the controls of the bundle.

    Examples:
      wherefrom audits --state done --severity critical --since 2026-01-31

      wherefrom audits --source vendor-batch-7 --limit 0 --json | jq .audit_id

      wherefrom audits --reason policy --fdr .1

      wherefrom audits --text "any product" --since 7d --sort score

      wherefrom audits --since today --count
    """
    if fdr is not None and not 0 < fdr < 1:
        raise typer.BadParameter("give a rate between 0 and 1, for example .1", param_hint="--fdr")
    with Service(url) as service:
        if count:
            facts = service.listing(fdr=fdr, **filters)
            print_json([facts]) if as_json else out().print(facts.text())
            return
        found = service.audits(
            page_size=_page_size(limit), fdr=fdr, sort=sort, unseen=unseen or None, **filters
        )
        wanted = islice(found, limit or None)
        if as_json:
            print_json(wanted)
        else:
            judged = [] if fdr is None else [("supported", "left")]
            rows = [(*_audit_row(one), *(_supported(one) for _ in judged)) for one in wanted]
            print_table([*_AUDIT_COLUMNS, *judged], rows, empty="no audit matches")
        if fdr is not None:
            err().print(service.support(fdr=fdr, **filters).text())


def show(
    audit_id: Annotated[int, typer.Argument(min=1, metavar="ID", help="The audit's number.")],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one audit: the flagged output and its citations.

    A positive influence means that, by this method, the training example made the output more likely. The score orders citations. It also counts words and
    similarity, so a citation may have a negative influence. Opponents have the most negative influence among the candidates that are not cited.

    Examples:
      wherefrom show 17

      wherefrom show 17 --json | jq '.citations[].example_id'
    """
    with Service(url) as service:
        detail = service.audit(audit_id)
    if as_json:
        print_json([detail])
        return
    print_audit(detail)


def cited_by(
    example: Annotated[
        str, typer.Argument(metavar="EXAMPLE", help="The training example's id in its corpus.")
    ],
    *,
    by_number: Annotated[
        bool, typer.Option("--by-number", help="EXAMPLE is the number in the database (training_example_id).")
    ] = False,
    limit: LimitOption = 50,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List outputs that cite a training example; strongest first.

    Examples:
      wherefrom cited-by refunds-0042

      wherefrom cited-by 1234 --by-number --limit 0 --json
    """
    with Service(url) as service:
        for one in _examples(service, example, by_number=by_number):
            found = islice(
                service.cited_by(one.training_example_id, page_size=_page_size(limit)),
                limit or None,
            )
            if as_json:
                number_of_it = {"training_example_id": one.training_example_id}
                print_json(number_of_it | cited.model_dump(mode="json") for cited in found)
            else:
                _print_example(one)
                rows = [_cited_by_row(cited) for cited in found]
                print_table(_CITED_BY_COLUMNS, rows, empty="no flagged output cites it")


def sources(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the sources: how often the training examples of each are cited.

    Examples:
      wherefrom sources
    """
    with Service(url) as service:
        found = service.sources()
    if as_json:
        print_json(found)
        return
    columns = [
        ("source", "left"),
        *((name, "right") for name in ("examples", "citations", "first", "audits")),
    ]
    rows = [
        (one.source, str(one.examples), str(one.citations), str(one.first_citations), str(one.audits))
        for one in found
    ]
    print_table(columns, rows, empty="no training example is stored")


def queue(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show the queue: audits by state, and the age of the oldest pending one.

    Examples:
      wherefrom queue --json
    """
    with Service(url) as service:
        health = service.queue()
    if as_json:
        print_json([health])
        return
    print_table(
        [("state", "left"), ("audits", "right")],
        [(state.value, health.count_text(state)) for state in health.states],
        empty="no audit is stored",
    )
    if health.oldest_pending_seconds is not None:
        out().print(f"the oldest pending audit has waited for {health.oldest_pending_seconds:.0f} s")
    if health.expired_leases:
        out().print(
            f"{health.expired_leases} leases have expired because workers died; the sweeper puts their audits back"
        )


def bundles(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the bundles that the service knows.

    Examples:
      wherefrom bundles
    """
    with Service(url) as service:
        found = service.bundles()
    if as_json:
        print_json(found)
        return
    columns = [
        ("id", "right"),
        ("bundle", "left"),
        ("model", "left"),
        ("form", "left"),
        ("examples", "right"),
    ]
    rows = [
        (str(one.id), one.name, one.model, one.form, str(one.corpus_examples), "active" if one.active else "", _moment(one.created_at))
        for one in found
    ]  # fmt: skip
    print_table([*columns, ("", "left"), ("added", "left")], rows, empty="no bundle is known")


def _page_size(limit: int) -> int:
    return min(limit, 200) or 200


def _moment(at: datetime | None) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M") if at else "-"


_AUDIT_COLUMNS = [
    ("id", "right"), ("state", "left"), ("severity", "left"), ("flagged for", "left"), ("received", "left"),
    ("top source", "left"), ("score", "right"), ("output", "left"),
]  # fmt: skip
_CITED_BY_COLUMNS = [
    ("rank", "right"),
    ("score", "right"),
    ("influence", "right"),
    *_AUDIT_COLUMNS[:5],
    ("output", "left"),
]


def _audit_row(audit: AuditSummary) -> Sequence[Text | str]:
    return (
        str(audit.audit_id), state_of(audit), audit.severity.value, audit.flag_reason, _moment(audit.created_at),
        audit.top_source or "-", number(audit.top_score), one_line(audit.excerpt, length=60),
    )  # fmt: skip


def _supported(audit: AuditSummary) -> str:
    return "-" if audit.supported is None else "yes" if audit.supported else "no"


def _cited_by_row(cited: CitedBy) -> Sequence[Text | str]:
    head = (str(cited.rank), number(cited.score), number(cited.influence_score))
    return (*head, *_audit_row(cited.audit)[:5], one_line(cited.audit.excerpt, length=60))


def _examples(service: Service, example: str, *, by_number: bool) -> Iterable[ExampleDetail]:
    if by_number:
        if not example.isdecimal():
            raise typer.BadParameter(f"{visible(example)!r} is not a number", param_hint="EXAMPLE")
        return (service.example(int(example)),)
    found = service.find_examples(example)
    if not found:
        raise NotFound(
            f"no stored training example has the id {example!r}; examples are stored when they are cited"
        )
    return found


def _print_example(example: ExampleDetail) -> None:
    print_heading(
        f"{example.example_id} (number {example.training_example_id}), source {example.source}, "
        f"corpus {example.corpus_sha256[:12]}, {example.citations} citations"
    )
    out().print(one_line(example.prompt, length=150))
    out().print(Text.assemble("-> ", one_line(example.completion, length=150)))
