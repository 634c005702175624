"""What is asked before a measurement is queued: that there is a recipe, and what the measurer found out about it when it started."""

from collections.abc import Sequence

from db.access.budgets import Spending
from db.measuring import group_measurements, measuring_checks
from db.remedies import what_ifs
from web.guard.budget import pay_further
from web.guard.caller import Caller
from web.services import Services
from wherefrom.errors import InvalidRequest, MeasuringUnavailable
from wherefrom.records import ExpectedCost, GroupMeasurementRecord, GroupRequest

#: Most outputs on which one request has a whole list measured.
MOST_MEASURED = 20


def check_measurable(services: Services, audit_id: int) -> ExpectedCost | None:
    """What one measurement on an audit's output will cost; None where no measurer has looked at its bundle.

    Raises:
        MeasuringUnavailable: there is no recipe, or the measurer found that it does not suit; the text says what to change.
    """
    services.settings.recipe_file()
    found = measuring_checks.of_audit(services.database, audit_id)
    if found is None:
        return None
    if found.code is not None:
        raise MeasuringUnavailable(
            f"nothing was queued: {found.reason}. Then start the measurer again (`python -m worker measure`), which checks it ({found.code})"
        )
    return found.cost


def measure_list(
    services: Services, what_if_id: int, audit_ids: Sequence[int], *, caller: Caller
) -> list[GroupMeasurementRecord]:
    """Have the effect of a what-if's whole list measured on some of its outputs: trainings without it, beside matched controls, shared by all of them.

    Args:
        services: The service.
        what_if_id: The what-if, which knows the list as it was when it was asked.
        audit_ids: Audits of its outputs; others are passed over, and so is what goes beyond `MOST_MEASURED`.
        caller: Who asks; each output costs one measurement of their key.

    Raises:
        NotFound: there is no such what-if.
        QuotaSpent: they are more than the key may have measured today; nothing was queued.
        InvalidRequest: none of the audits is of an output of it.
        MeasuringUnavailable: there is no recipe, or it does not suit.
    """
    what_ifs.get_what_if(services.database, what_if_id)
    known = what_ifs.audits_of(services.database, what_if_id)
    audits = [one for one in dict.fromkeys(audit_ids) if one in known][:MOST_MEASURED]
    if not audits:
        raise InvalidRequest("choose at least one output of the what-if")
    for audit_id in audits:
        check_measurable(services, audit_id)
    pay_further(services, caller, Spending.MEASUREMENTS, len(audits) - 1)
    wanted = GroupRequest(example_ids=tuple(what_ifs.left_out_ids(services.database, what_if_id)))
    return [
        group_measurements.request_group(
            services.database, audit_id=audit_id, request=wanted, requested_by=caller.name
        )
        for audit_id in audits
    ]
