"""Audits the outputs of a whole filter under another bundle, for a form or the API; `db.reviewing.bulk` does it."""

from db.access.budgets import Spending
from db.access.keys import Scope
from db.bundles import catalogue
from db.reviewing import bulk
from web.guard.budget import pay_further
from web.guard.caller import Caller
from web.services import Services
from wherefrom.errors import Forbidden
from wherefrom.records import AuditFilter, BulkResult


def reaudit_under(services: Services, caller: Caller, filters: AuditFilter, *, under: str) -> BulkResult:
    """Queue the audits, and tell the workers.

    Args:
        services: The service.
        caller: Who asks.
        filters: Which outputs.
        under: Name of the bundle.

    Raises:
        Forbidden: the caller lacks the scope `measure`.
        UnknownBundle: there is no such bundle.
    """
    if not caller.may(Scope.MEASURE):
        raise Forbidden(
            f"{caller.name!r} lacks the scope `measure`; audits under another bundle cost as much as new ones"
        )
    bundle = catalogue.bundle_by_name(services.database, under)
    if caller.budget is not None:
        counted = bulk.preview(services.database, filters, under=bundle.id).reauditable or 0
        pay_further(services, caller, Spending.REAUDITS, min(counted, bulk.MOST))
    done = bulk.reaudit(services.database, filters, bundle.id)
    services.notify([bundle.id])
    return done
