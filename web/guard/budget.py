"""What requests cost a key with quotas, by route. Routes need no line of their own, and cannot forget one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from db.access import budgets
from db.access.budgets import Spending
from web.guard.caller import Caller
from web.services import Services

#: What is counted of a day, by method and path; outputs, re-audits and what is measured together are counted by their number (`web.json_api.api`, `web.asking.reauditing`, `web.asking.measuring`).
COSTS: dict[tuple[str, str], Spending] = {
    ("GET", "/v1/audits.csv"): Spending.EXPORTS,
    ("GET", "/v1/audits.jsonl"): Spending.EXPORTS,
    ("GET", "/v1/export.jsonl"): Spending.EXPORTS,
    ("GET", "/v1/export.zip"): Spending.EXPORTS,
    ("GET", "/v1/fix-lists/{list_id}/cleaned.jsonl"): Spending.EXPORTS,
    ("GET", "/v1/fix-lists/{list_id}/rows.jsonl"): Spending.EXPORTS,
    ("GET", "/v1/report.html"): Spending.EXPORTS,
    ("GET", "/v1/verdicts.jsonl"): Spending.EXPORTS,
    ("POST", "/audits/{audit_id}/citations/{rank}/measure"): Spending.MEASUREMENTS,
    ("POST", "/audits/{audit_id}/hypotheticals"): Spending.REAUDITS,
    ("POST", "/audits/{audit_id}/measure"): Spending.MEASUREMENTS,
    ("POST", "/findings/{finding_id}/ask"): Spending.REAUDITS,
    ("POST", "/fix-lists/{list_id}/what-ifs"): Spending.WHAT_IFS,
    ("POST", "/v1/audits/{audit_id}/citations/{rank}/measure"): Spending.MEASUREMENTS,
    ("POST", "/v1/audits/{audit_id}/hypotheticals"): Spending.REAUDITS,
    ("POST", "/v1/audits/{audit_id}/measure"): Spending.MEASUREMENTS,
    ("POST", "/v1/findings/{finding_id}/ask"): Spending.REAUDITS,
    ("POST", "/v1/fix-lists/{list_id}/what-ifs"): Spending.WHAT_IFS,
    ("POST", "/v1/groups"): Spending.OUTPUTS,
    ("POST", "/v1/what-ifs/{what_if_id}/measure"): Spending.MEASUREMENTS,
    ("POST", "/what-ifs/{what_if_id}/measure"): Spending.MEASUREMENTS,
}


def pay_for(services: Services, caller: Caller, method: str, route: str) -> None:
    """Count a request, and what it is about to do. It asks the database, so it runs in a thread.

    Raises:
        TooManyRequests: the key asks faster than it may.
        QuotaSpent: the key did so much today as it may.
    """
    if caller.budget is None:
        return
    budgets.pay_request(services.database, caller.budget)
    if (what := COSTS.get((method, route))) is not None:
        budgets.pay(services.database, caller.budget, what)


@contextmanager
def paying_outputs(services: Services, caller: Caller, number: int) -> Iterator[Callable[[int], None]]:
    """Count outputs before they are stored; those that were not stored in the end are given back.

    Yields:
        Takes how many were stored; without a word, none were.

    Raises:
        QuotaSpent: they are more than the key may send today.
    """
    if caller.budget is None:
        yield lambda _: None
        return
    stored = [0]
    budgets.pay(services.database, caller.budget, Spending.OUTPUTS, number)
    try:
        yield stored.append
    finally:
        budgets.give_back(services.database, caller.budget, Spending.OUTPUTS, number - stored[-1])


def pay_further(services: Services, caller: Caller, what: Spending, number: int) -> None:
    """Count what a request is about to do beside what its route costs: outputs of a filter that are audited again, all but the first of what is measured together.

    Raises:
        QuotaSpent: it is more than the key may do today.
    """
    if caller.budget is not None:
        budgets.pay(services.database, caller.budget, what, number)
