"""`wherefrom today`: how the work goes, who does it, what is stuck and why."""

from rich.text import Text

from wherefrom.cli.options import JsonOption, UrlOption
from wherefrom.cli.output import print_json
from wherefrom.client import Service
from wherefrom.records import AuditState, Today
from wherefrom.terminal import err, print_table, visible


def today(*, url: UrlOption = None, as_json: JsonOption = False) -> None:
    """Show how the work goes: what waits, the rate, the processes, what is stuck and why, and what is new.

    `queue` shows the states alone. `bulk requeue --state dead --code CODE` tries audits again.

    Examples:
      wherefrom today

      wherefrom today --json | jq .stuck
    """
    with Service(url) as service:
        found = service.today()
    if as_json:
        print_json([found])
        return
    for alert in found.alerts:
        err().print(Text(f"{visible(alert.text)} {visible(alert.advice)}", style="red"))
    print_table([("", "left"), ("", "right")], _figures(found), empty="")
    stuck = [
        (one.state.value, one.code or "-", f"{one.audits}{'+' if one.more else ''}", one.advice)
        for one in found.stuck
    ]
    columns = [("state", "left"), ("code", "left"), ("audits", "right"), ("what to do", "left")]
    print_table(columns, stuck, empty="no audit is stuck")
    if found.stuck_work:
        work = [
            (
                one.kind.value.replace("_", " "),
                one.state.value,
                one.code or "-",
                f"{one.number}{'+' if one.more else ''}",
                one.advice,
            )
            for one in found.stuck_work
        ]
        columns = [
            ("work", "left"),
            ("state", "left"),
            ("code", "left"),
            ("number", "right"),
            ("what to do", "left"),
        ]
        print_table(columns, work, empty="")
    workers = [
        (
            one.role,
            f"{one.host}:{one.pid}",
            "alive" if one.alive else "silent",
            ", ".join(one.bundles) or "-",
            ", ".join(one.models) or "-",
        )
        for one in found.workers
    ]
    columns = [(name, "left") for name in ("role", "process", "sign", "bundles", "models")]
    print_table(columns, workers, empty="no process has given a sign of life")


def _figures(found: Today) -> list[tuple[str, str]]:
    queue = found.queue
    age = "-" if queue.oldest_pending_seconds is None else f"{queue.oldest_pending_seconds:.0f} s"
    share = "-" if found.abstained_share is None else f"{found.abstained_share:.0%}"
    figures = [
        ("pending", queue.count_text(AuditState.PENDING)),
        ("oldest pending", age),
        ("running", queue.count_text(AuditState.RUNNING)),
        ("answered a minute", f"{found.per_minute('done', 'abstained'):.1f}"),
        ("dead a minute", f"{found.per_minute('dead'):.1f}"),
        ("abstained, this hour", share),
    ]
    if found.news is not None:
        figures += [
            ("received since your last visit", str(found.news.received)),
            ("answered since then", str(found.news.answered)),
            ("new findings since then", str(found.news.findings)),
        ]
    return figures
