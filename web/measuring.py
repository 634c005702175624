"""What is asked before a measurement is queued: that there is a recipe, and what the measurer found out about it when it started."""

from db import measuring_checks
from web.services import Services
from wherefrom.errors import MeasuringUnavailable
from wherefrom.records import ExpectedCost


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
