"""The routes of the web application, as its routers name them."""

from fastapi.routing import APIRoute

from web.app import _ROUTERS


def all_routes() -> list[APIRoute]:
    """Every route of the API and of the pages, in the order in which they are asked."""
    found = []
    for router in _ROUTERS:
        for one in router.routes:
            assert isinstance(one, APIRoute)
            found.append(one)
    return found


def paths_of(method: str) -> set[str]:
    """The paths that answer to a method, with the names of what stands in them."""
    return {one.path for one in all_routes() if method in (one.methods or ())}
