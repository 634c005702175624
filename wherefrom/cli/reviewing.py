"""Commands of the desk: review queues, the next audit of one, verdicts and their history."""

import shlex
from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.audit_view import print_audit, print_heading
from wherefrom.cli.options import JsonOption, UrlOption, takes_filters
from wherefrom.cli.output import many_lines, one_line, print_json
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.errors import NotFound
from wherefrom.records import QueueOrder, QueueSummary, ReviewRecord, Verdict, WorkItem
from wherefrom.terminal import err, out, print_table, say, visible

AsOption = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Who judges, where the service asks for no keys."),
]
QueueArgument = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the review queue.")]


def queues(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the review queues: what waits, what is done, what is yours.

    Examples:
      wherefrom queues

      wherefrom queues --json | jq 'select(.open > 0) | .name'
    """
    with Service(url) as service:
        found = service.review_queues()
    if as_json:
        print_json(found)
        return
    columns = [
        ("queue", "left"),
        ("order", "left"),
        *((name, "right") for name in ("people", "mine", "open", "done", "out")),
    ]
    rows = [
        (one.name + (" (blind)" if one.blind else ""), one.order.value, str(one.reviewers), str(one.mine), str(one.open), str(one.done), str(one.removed))
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="no review queue")


@takes_filters
def queue_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new queue.")],
    *,
    filters: AuditFilters,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="Nothing enters by itself.")] = False,
    order: Annotated[QueueOrder, typer.Option(help="In which order it is worked off.")] = QueueOrder.OLDEST,
    reviewers: Annotated[int, typer.Option(min=1, max=5, help="How many people judge each audit.")] = 1,
    dedupe: Annotated[bool, typer.Option(help="Let equal outputs in once.")] = True,
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide what was computed, and mix in examples at random.")
    ] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a review queue; the filters are its rule, and without filters every audit enters once it is answered.

    Examples:
      wherefrom queue-create refunds --reason refund_promise --order severity

      wherefrom queue-create sample --state done --blind --reviewers 2 --order shuffled
    """
    with Service(url) as service:
        made = service.make_review_queue(
            name, by_hand=by_hand, order=order, reviewers=reviewers, dedupe=dedupe, blind=blind, **filters
        )
    if as_json:
        print_json([made])
    else:
        out().print(Text(f"queue {visible(made.name)} holds {made.open} audits"))


@takes_filters
def queue_add(
    queue: QueueArgument,
    *,
    filters: AuditFilters,
    assign: Annotated[int | None, typer.Option(help="Number of the person who judges what is new.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many match.")] = False,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put every audit of a filter into a review queue. What is in it, or was taken out, stays as it is.

    Examples:
      wherefrom queue-add refunds --source vendor-batch-7 --dry-run

      wherefrom queue-add refunds --source vendor-batch-7 --assign 2
    """
    with Service(url) as service:
        queue_id = queue_named(service, queue).queue_id
        added = service.put_into_review_queue(queue_id, assign_to=assign, dry_run=dry_run, **filters)
    if as_json:
        print_json([added])
    else:
        out().print(f"{added.matched} match, {added.added} entered, {added.assigned} assigned")


def review_next(
    queue: QueueArgument,
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take the next audit of a review queue, and show it. Of a blind queue: the output, and training examples without scores.

    Examples:
      wherefrom review-next refunds
    """
    with Service(url) as service:
        found = queue_named(service, queue)
        item = service.next_review_item(found.queue_id, reviewer=reviewer)
        if item is None:
            err().print("nothing is left for you in this queue")
            return
        work = service.review_item(found.queue_id, item.item_id, reviewer=reviewer)
    if as_json:
        print_json([work if work.detail is None else work.detail])
    elif work.detail is None:
        _print_blind(found, work)
    else:
        print_audit(work.detail)


def _print_blind(queue: QueueSummary, work: WorkItem) -> None:
    """An output and the training examples that may have taught it, in the order that everybody sees."""
    print_heading(f"Item {work.item.item_id} of the blind queue {visible(queue.name)}")
    for turn in work.turns:
        out().print(Text(f"{turn.role.value}:"), many_lines(turn.content))
    out().print(Text("flagged answer:"), many_lines(work.completion))
    columns = [("example", "right"), ("prompt", "left"), ("answer", "left"), ("yours", "left")]
    rows = [
        (str(one.training_example_id), one_line(one.prompt, length=200), one_line(one.completion, length=400), one.mine.value if one.mine else "")
        for one in work.rows
    ]  # fmt: skip
    print_table(columns, rows, empty="no training example is left to judge")
    name = shlex.quote(visible(queue.name))
    say(f"Next: wherefrom review-blind {name} {work.item.item_id} EXAMPLE --verdict unrelated")


def review(
    audit_id: Annotated[int, typer.Argument(min=1, metavar="AUDIT_ID", help="The audit's number.")],
    *,
    verdict: Annotated[Verdict | None, typer.Option(help="What you find.")] = None,
    rank: Annotated[
        int | None, typer.Option(help="Rank of the citation. Default: the audit as a whole.")
    ] = None,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    quote: Annotated[
        str | None, typer.Option(help="Words that the comment is about, copied exactly.")
    ] = None,
    part: Annotated[str, typer.Option(help="Where the words stand: output or example.")] = "output",
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a verdict on an audit or one of its citations, or comment on it. A later verdict replaces an earlier one; nothing is deleted.

    Examples:
      wherefrom review 17 --verdict confirmed --rank 1

      wherefrom review 17 --comment "Who accepted this batch?" --quote "no receipt needed"
    """
    if verdict is None and not comment.strip():
        raise typer.BadParameter("give --verdict, --comment or both")
    with Service(url) as service:
        made = service.review(
            audit_id, verdict, rank=rank, comment=comment, quote=quote, part=part, reviewer=reviewer
        )
    if as_json:
        print_json([made])
    else:
        out().print(
            f"stored as entry {made.review_id}; to take it back: wherefrom review-undo {made.review_id}"
        )


def reviews(
    audit_id: Annotated[int, typer.Argument(min=1, metavar="AUDIT_ID", help="The audit's number.")],
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what people found about an audit, oldest first; `stands` marks the verdicts that hold now.

    Examples:
      wherefrom reviews 17
    """
    with Service(url) as service:
        found = service.reviews(audit_id)
    if as_json:
        print_json(found)
        return
    columns = [
        ("entry", "right"),
        ("about", "left"),
        ("who", "left"),
        ("verdict", "left"),
        ("", "left"),
        ("comment", "left"),
    ]
    print_table(columns, [_row(one) for one in found], empty="nobody has judged it")


def review_undo(
    review_id: Annotated[int, typer.Argument(min=1, metavar="ENTRY", help="Number of the entry.")],
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an entry of yours back; the one before it stands again.

    Examples:
      wherefrom review-undo 41
    """
    with Service(url) as service:
        undone = service.undo_review(review_id, reviewer=reviewer)
    if as_json:
        print_json([undone])
    else:
        out().print(f"entry {undone.review_id} is taken back")


def _row(one: ReviewRecord) -> tuple[str | Text, ...]:
    about = (
        "the audit"
        if one.training_example_id is None
        else "mixed in"
        if one.rank is None
        else f"rank {one.rank}"
    )
    said = "took back" if one.undoes_id else "comment" if one.verdict is None else one.verdict.value
    notes = [word for word, holds in (("stands", one.stands), ("blind", one.blind), ("taken back", one.undone), ("chosen name", not one.proven)) if holds]  # fmt: skip
    return (
        str(one.review_id),
        about,
        visible(one.reviewer),
        said,
        ", ".join(notes),
        one_line(one.comment, length=80),
    )


def queue_named(service: Service, name: str) -> QueueSummary:
    """The review queue of this name.

    Raises:
        NotFound: there is none that the key may see.
    """
    found = next((one for one in service.review_queues() if one.name == name), None)
    if found is None:
        raise NotFound(f"no review queue is named {name!r}; `wherefrom queues` lists them")
    return found
