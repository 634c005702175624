"""Commands about lists of audits as a whole: saved views, and what is done to all that a filter finds."""

from typing import Annotated

import typer
from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption, takes_filters
from wherefrom.cli.output import print_json
from wherefrom.cli.reviewing import AsOption
from wherefrom.client import Service
from wherefrom.client.filters import AuditFilters
from wherefrom.errors import NotFound
from wherefrom.records import AuditOrder, BulkAction, BulkPreview, SavedViewRecord, Verdict
from wherefrom.terminal import err, out, print_table, visible


def views(*, reviewer: AsOption = None, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """List your saved views of the list of audits.

    Examples:
      wherefrom views
    """
    with Service(url) as service:
        found = service.views(reviewer=reviewer)
    if as_json:
        print_json(found)
        return
    rows = [(str(one.view_id), visible(one.name), _words(one)) for one in found]
    print_table([("id", "right"), ("view", "left"), ("list", "left")], rows, empty="no saved view")


@takes_filters
def view_save(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the view; yours of that name is replaced.")
    ],
    *,
    filters: AuditFilters,
    sort: Annotated[AuditOrder | None, typer.Option("--sort", help="The order of the list.")] = None,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a list of audits under a name. Times stay as you write them, so `today` stays today.

    Examples:
      wherefrom view-save "refunds today" --reason refund_promise --since today
    """
    with Service(url) as service:
        saved = service.save_view(name, sort=sort, reviewer=reviewer, **filters)
    if as_json:
        print_json([saved])
    else:
        out().print(Text(f"view {visible(saved.name)} is kept; its page is /views/{saved.view_id}"))


def view_delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the view.")],
    *,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a saved view of yours; with `--json`, as it was.

    Examples:
      wherefrom view-delete "refunds today"
    """
    with Service(url) as service:
        view = view_named(service, name, reviewer)
        service.delete_view(view.view_id, reviewer=reviewer)
    if as_json:
        print_json([view])
    else:
        out().print(Text(f"view {visible(name)} is gone"))


@takes_filters
def bulk(
    action: Annotated[
        BulkAction, typer.Argument(metavar="ACTION", help="requeue, verdict, take_back or reaudit.")
    ],
    *,
    filters: AuditFilters,
    give: Annotated[Verdict | None, typer.Option(help="The verdict to give.")] = None,
    comment: Annotated[str, typer.Option(help="Why, with the verdict.")] = "",
    under: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Name of the bundle to audit the outputs under too.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many would change.")] = False,
    reviewer: AsOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do something to every audit of a filter; `queue-add` puts them into a review queue and assigns them.

    `requeue` sends abstained, rejected and dead audits back to the queue. `verdict` gives one verdict on each answered audit that you have not judged; `take_back` takes back your verdicts on the audits as a whole.
    `reaudit` audits the outputs under another bundle too, also of another model; the old answers stay. One run takes a bounded number and says how many are left.

    Examples:
      wherefrom bulk requeue --state dead --since 24h --dry-run

      wherefrom bulk verdict --give unrelated --text "test message"

      wherefrom bulk take_back --text "test message"

      wherefrom bulk reaudit --under support-8 --bundle support-7 --dry-run
    """
    if action is BulkAction.VERDICT and give is None and not dry_run:
        raise typer.BadParameter("name the verdict", param_hint="--give")
    if action is BulkAction.REAUDIT and under is None:
        raise typer.BadParameter("name the bundle", param_hint="--under")
    with Service(url) as service:
        if dry_run:
            found = service.bulk_preview(under=under, reviewer=reviewer, **filters)
            print_json([found]) if as_json else out().print(_preview(found, action))
            return
        if action is BulkAction.REQUEUE:
            done = service.requeue_all(**filters)
        elif action is BulkAction.REAUDIT:
            done = service.reaudit_all(under or "", **filters)
        elif action is BulkAction.TAKE_BACK:
            done = service.take_back_all(reviewer=reviewer, **filters)
        else:
            done = service.judge_all(give or "", comment=comment, reviewer=reviewer, **filters)
    if as_json:
        print_json([done])
        return
    out().print(f"{done.changed} changed")
    if done.left:
        err().print(f"{done.left} are left; run it again")


def _preview(found: BulkPreview, action: BulkAction) -> str:
    number = {
        BulkAction.REQUEUE: found.requeuable,
        BulkAction.VERDICT: found.unjudged,
        BulkAction.TAKE_BACK: found.judged,
        BulkAction.REAUDIT: found.reauditable or 0,
    }[action]
    changes = "outputs would be audited" if action is BulkAction.REAUDIT else "audits would change"
    return f"{f'more than {found.most}' if number > found.most else number} {changes}"


def view_named(service: Service, name: str, reviewer: str | None) -> SavedViewRecord:
    """The caller's view of a name.

    Raises:
        NotFound: there is none.
    """
    found = next((one for one in service.views(reviewer=reviewer) if one.name == name), None)
    if found is None:
        raise NotFound(f"you have no saved view named {name!r}; `wherefrom views` lists them")
    return found


def _words(view: SavedViewRecord) -> Text:
    return Text(
        ", ".join(f"{name.replace('_', ' ')} {visible(value)}" for name, value in view.parameters.items())
        or "all"
    )
