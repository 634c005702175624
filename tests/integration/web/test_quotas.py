"""Quotas of keys over HTTP: 429 with a code and `Retry-After`, and every costly route is counted."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from db.access import keys
from db.access.budgets import Quotas
from db.access.keys import Scope
from db.session import Database
from tests.integration.web import story
from tests.integration.web.routes import all_routes
from web.guard.budget import COSTS
from web.guard.security import needs
from wherefrom.settings import Settings

RECORD = {"model": story.MODEL, "prompt": "p", "completion": "c"}


def bounded(database: Database, name: str, quotas: Quotas, *scopes: str) -> dict[str, str]:
    """The header with a new key."""
    return {"Authorization": f"Bearer {keys.create_key(database, name, scopes, quotas=quotas)}"}


def test_outputs_of_a_day(quick_client: TestClient, sqlite_story: tuple[Settings, Database]) -> None:
    """A record that was stored before costs nothing; a list that is too long is refused as a whole."""
    header = bounded(sqlite_story[1], "producer", Quotas(outputs=3), "ingest")
    known = RECORD | {"idempotency_key": "one"}
    for _ in range(4):
        assert quick_client.post("/v1/flagged", json=known, headers=header).status_code == 202
    answer = quick_client.post(
        "/v1/flagged", json=[RECORD | {"prompt": str(one)} for one in range(3)], headers=header
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_spent")
    assert 0 < int(answer.headers["Retry-After"]) <= 86_400
    assert (
        quick_client.post("/v1/flagged", json=[RECORD, RECORD | {"prompt": "q"}], headers=header).status_code
        == 202
    )
    assert quick_client.post("/v1/flagged", json=RECORD | {"prompt": "r"}, headers=header).status_code == 429


def test_requests_of_a_moment_and_exports_of_a_day(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """A request counts once, however many scopes its route asks for; pages are counted as the API is."""
    header = bounded(
        sqlite_story[1],
        "reader",
        Quotas(requests_per_second=0.01, burst=3, exports=1),
        "read",
        "review",
        "measure",
    )
    assert quick_client.get("/v1/audits.csv", headers=header).status_code == 200
    answer = quick_client.get("/v1/export.jsonl", headers=header)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "quota_spent")
    assert quick_client.get("/review", headers=header).status_code == 200
    answer = quick_client.get("/v1/audits", headers=header)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_requests")
    assert 0 < int(answer.headers["Retry-After"]) <= 100


def test_no_costly_route_is_forgotten() -> None:
    """Whatever needs the scope `measure`, or sends a file, has a cost; a cost is of a route that is there."""
    there, costly = set(), set()
    for one in all_routes():
        asks = {dependency.call for dependency in _all_dependencies(one.dependant)}
        for method in one.methods or ():
            there.add((method, one.path))
            if needs(Scope.MEASURE) in asks or one.path.endswith((".jsonl", ".csv", ".zip", "/report.html")):
                costly.add((method, one.path))
    assert costly <= set(COSTS)
    assert set(COSTS) <= there


def _all_dependencies(dependant: Any) -> list[Any]:
    found = list(dependant.dependencies)
    return found + [deeper for one in found for deeper in _all_dependencies(one)]


def test_the_page_of_keys_is_for_admins(
    quick_client: TestClient, sqlite_story: tuple[Settings, Database]
) -> None:
    """It shows what ends soon and what bounds there are, and never a secret."""
    from datetime import timedelta

    from wherefrom.records import utc_now

    database = sqlite_story[1]
    secret = keys.create_key(
        database, "<b>shop", ["ingest"], utc_now() + timedelta(days=3), quotas=Quotas(outputs=77)
    )
    assert keys.check_key(database, secret) is not None  # used
    page = quick_client.get("/keys")
    assert page.status_code == 200
    assert "&lt;b&gt;shop" in page.text
    assert "replace it" in page.text
    assert "77" in page.text
    assert secret.split("_", 2)[2] not in page.text
    reader = bounded(database, "reading", Quotas(), "read")
    assert quick_client.get("/keys", headers=reader).status_code == 403
    assert 'href="/keys"' not in quick_client.get("/trail", headers=reader).text


@pytest.mark.parametrize("scopes", [("admin",), ("read", "metrics")])
def test_a_key_for_the_whole_cannot_be_limited(
    sqlite_story: tuple[Settings, Database], scopes: tuple[str, ...]
) -> None:
    """What speaks of everything leaks past any limit."""
    from db.sight import Limits
    from wherefrom.errors import ConfigurationError

    database = sqlite_story[1]
    with pytest.raises(ConfigurationError, match="cannot be limited"):
        keys.create_key(database, "wide", scopes, limits=Limits(producers=("shop",)))
    with pytest.raises(ConfigurationError, match="not among its producers"):
        keys.create_key(database, "ingest", ["ingest"], limits=Limits(producers=("shop",)))
    with pytest.raises(ConfigurationError, match="cannot be limited to queues"):
        keys.create_key(database, "ingest", ["ingest"], limits=Limits(queues=("shop",)))
