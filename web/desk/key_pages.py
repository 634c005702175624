"""The page of API keys, for admins: whose they are, what they may do, when they end and when they were last used. Never a key."""

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from db.access import keys
from db.access.keys import KeyInfo, Scope
from web.drawing.render import render
from web.guard.security import needs
from web.json_api.api import Shared
from wherefrom.records import utc_now

router = APIRouter(include_in_schema=False, dependencies=[Depends(needs(Scope.ADMIN))])


@router.get("/keys")
def listed(request: Request, services: Shared) -> HTMLResponse:
    """The keys that are not revoked, those that end soon first."""
    now = utc_now()
    held = [one for one in keys.list_keys(services.database) if one.revoked_at is None]
    return render(
        "keys.html",
        request,
        keys=sorted(held, key=lambda one: (not one.is_ending(now), one.name)),
        bounds={one.key_id: _bounds(one) for one in held},
        now=now,
    )


def _bounds(key: KeyInfo) -> list[tuple[str, str]]:
    """The limits and quotas of a key, in words."""
    limits = [(name, ", ".join(values)) for name, values in (key.limits.stored() or {}).items()]
    quotas = [(name.replace("_", " "), f"{value:g}") for name, value in (key.quotas.stored() or {}).items()]
    return limits + quotas
