"""Commands that work review queues off: what is in one, who has it, what is taken out, blind verdicts, agreement."""

from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import number, one_line, print_json
from wherefrom.cli.reviewing import AsOption, QueueArgument, queue_named
from wherefrom.client import Service
from wherefrom.errors import NotFound
from wherefrom.records import ItemState, PersonRecord, QueueItem, Verdict
from wherefrom.terminal import out, print_table, visible

ItemArgument = Annotated[int, typer.Argument(min=1, metavar="ITEM", help="Number of the item of the queue.")]


def people(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List the people who can be given audits.

    Examples:
      wherefrom people
    """
    with Service(url) as service:
        found = service.people()
    if as_json:
        print_json(found)
        return
    rows = [(str(one.person_id), visible(one.name), "key" if one.has_key else "chosen name") for one in found]
    print_table([("number", "right"), ("person", "left"), ("known by", "left")], rows, empty="nobody yet")


def queue_items(
    queue: QueueArgument,
    *,
    state: Annotated[ItemState, typer.Option(help="Which audits of it.")] = ItemState.OPEN,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the audits of a review queue in its order, with who has them.

    Examples:
      wherefrom queue-items refunds

      wherefrom queue-items refunds --state removed --json
    """
    with Service(url) as service:
        found = service.review_items(queue_named(service, queue).queue_id, state=state.value)
        if as_json:
            print_json(found)
            return
        rows = [_row(one) for one in found]
    columns = [
        ("item", "right"),
        ("audit", "right"),
        ("who", "left"),
        ("judged", "right"),
        ("output", "left"),
    ]
    print_table(columns, rows, empty="the queue holds no such audit")


def queue_people(
    queue: QueueArgument,
    *,
    add: Annotated[
        str | None, typer.Option(metavar="PERSON", help="Let this person take audits by themselves.")
    ] = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far each person is with a review queue, or add somebody to it.

    Examples:
      wherefrom queue-people refunds

      wherefrom queue-people refunds --add ben
    """
    with Service(url) as service:
        queue_id = queue_named(service, queue).queue_id
        found = (
            service.queue_people(queue_id)
            if add is None
            else service.add_queue_member(queue_id, person_named(service, add).person_id)
        )
    if as_json:
        print_json(found)
        return
    rows = [
        (visible(one.person.name), "member" if one.member else "", f"{one.finished} of {one.assigned}")
        for one in found
    ]
    print_table(
        [("person", "left"), ("", "left"), ("judged", "right")], rows, empty="nobody has taken an audit"
    )


def queue_assign(
    queue: QueueArgument,
    *,
    to: Annotated[str, typer.Option(metavar="PERSON", help="Who gets them: name or number.")],
    item: Annotated[
        list[int] | None, typer.Option("--item", help="Number of an item; may be repeated.")
    ] = None,
    most: Annotated[int, typer.Option(min=0, help="In its place: so many of the next ones.")] = 0,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give somebody audits of a review queue.

    Examples:
      wherefrom queue-assign refunds --to ben --most 20

      wherefrom queue-assign refunds --to ben --item 4 --item 9
    """
    if bool(item) == bool(most):
        raise typer.BadParameter("give --item or --most")
    with Service(url) as service:
        person = person_named(service, to)
        assigned = service.assign_items(
            queue_named(service, queue).queue_id, person.person_id, items=item or (), most=most
        )
    if as_json:
        print_json([{"assigned": assigned, "person": person.name}])
    else:
        out().print(Text(f"{assigned} audits assigned to {visible(person.name)}"))


def queue_unassign(
    queue: QueueArgument,
    item: ItemArgument,
    *,
    of: Annotated[str, typer.Option("--from", metavar="PERSON", help="Who has it: name or number.")],
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an audit of a review queue off somebody who has not judged it.

    Examples:
      wherefrom queue-unassign refunds 4 --from ben
    """
    with Service(url) as service:
        person_id = person_named(service, of).person_id
        changed = service.unassign_item(queue_named(service, queue).queue_id, item, person_id)
    _told(changed, as_json=as_json)


def queue_remove(
    queue: QueueArgument, item: ItemArgument, *, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Take an audit out of a review queue; it stays out.

    Examples:
      wherefrom queue-remove refunds 4
    """
    with Service(url) as service:
        changed = service.remove_item(queue_named(service, queue).queue_id, item)
    _told(changed, as_json=as_json)


def queue_restore(
    queue: QueueArgument, item: ItemArgument, *, url: UrlOption = None, as_json: JsonOption = False
) -> None:
    """Put an audit back that was taken out of a review queue.

    Examples:
      wherefrom queue-restore refunds 4
    """
    with Service(url) as service:
        changed = service.restore_item(queue_named(service, queue).queue_id, item)
    _told(changed, as_json=as_json)


def queue_fill(queue: QueueArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Apply the rule of a review queue now; the service does so every few seconds.

    Examples:
      wherefrom queue-fill refunds
    """
    with Service(url) as service:
        found = service.fill_review_queue(queue_named(service, queue).queue_id)
    if as_json:
        print_json([found])
    else:
        out().print(Text(f"queue {visible(found.name)} holds {found.open} audits"))


def queue_close(queue: QueueArgument, *, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Let nothing more enter a review queue; what is in it can still be judged.

    Examples:
      wherefrom queue-close refunds
    """
    with Service(url) as service:
        found = service.close_review_queue(queue_named(service, queue).queue_id)
    if as_json:
        print_json([found])
    else:
        out().print(Text(f"queue {visible(found.name)} is closed"))


def review_blind(
    queue: QueueArgument,
    item: ItemArgument,
    example: Annotated[
        int, typer.Argument(min=1, metavar="EXAMPLE", help="Number of a training example of the item.")
    ],
    *,
    verdict: Annotated[Verdict, typer.Option(help="What you find.")],
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Judge one training example of a blind review queue; `review-next` shows them.

    Examples:
      wherefrom review-blind sample 4 812 --verdict unrelated
    """
    with Service(url) as service:
        made = service.judge_blind(
            queue_named(service, queue).queue_id, item, example, verdict=verdict, reviewer=reviewer
        )
    if as_json:
        print_json([made])
    else:
        out().print(
            f"stored as entry {made.review_id}; to take it back: wherefrom review-undo {made.review_id}"
        )


def agreement(
    queue: Annotated[
        str | None, typer.Argument(metavar="[QUEUE]", help="Only what was judged in this review queue.")
    ] = None,
    *,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far every two people agree who judged the same: Cohen's kappa with its 95 % interval.

    1 is full agreement, 0 what chance alone would give.

    Examples:
      wherefrom agreement

      wherefrom agreement refunds --json
    """
    with Service(url) as service:
        found = service.agreement(None if queue is None else queue_named(service, queue).queue_id)
    if as_json:
        print_json(found)
        return
    columns = [("people", "left"), ("both", "right"), ("same", "right"), ("kappa", "right"), ("95 %", "right"), ("differ on audits", "left")]  # fmt: skip
    rows = [
        (f"{visible(one.first)} and {visible(one.second)}", str(one.pairs), f"{100 * one.observed:.0f} %", number(one.kappa, digits=2), f"{number(one.kappa_low, digits=2)} to {number(one.kappa_high, digits=2)}", ", ".join(map(str, one.differing_audits)))
        for one in found
    ]  # fmt: skip
    print_table(columns, rows, empty="no two people have judged the same")


def person_named(service: Service, wanted: str) -> PersonRecord:
    """The person of this name or number.

    Raises:
        NotFound: there is nobody.
    """
    found = service.people()
    named = [one for one in found if one.name == wanted]
    numbered = [one for one in found if wanted.isdecimal() and one.person_id == int(wanted)]
    if not (named or numbered):
        raise NotFound(f"nobody is named {wanted!r}; `wherefrom people` lists everybody")
    return (named or numbered)[0]


def _row(one: QueueItem) -> tuple[str | Text, ...]:
    return (
        str(one.item_id),
        str(one.audit.audit_id),
        _who(one),
        str(one.finished),
        one_line(one.audit.excerpt, length=60),
    )


def _who(one: QueueItem) -> str:
    return ", ".join(visible(person.name) for person in one.assigned) or "nobody"


def _told(changed: QueueItem, *, as_json: bool) -> None:
    if as_json:
        print_json([changed])
        return
    where = f"item {changed.item_id} (audit {changed.audit.audit_id})"
    out().print(Text(f"{where}: {changed.state.value}, {_who(changed)} has it"))
