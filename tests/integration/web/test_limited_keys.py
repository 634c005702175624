"""A key that is limited to producers, models or queues is shown nothing of the others, on any route, whatever it asks for."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from db.access import keys
from db.models import Audit, Base, Citation, Measurement, ReviewItem, SavedView
from db.reading import listings
from db.session import Database
from db.sight import NO_LIMITS, OPEN, ROOT, Limits, plan
from db.sql_views.views import VIEWS
from tests.integration.web import story
from tests.integration.web.canaries import (
    BUNDLE,
    CANARY,
    MODEL,
    add_other_world,
    answer_story,
    newest,
    plant,
)
from tests.integration.web.conftest import BASE_URL, SECRET, _fill
from tests.integration.web.forms import send, sign_in
from tests.integration.web.routes import paths_of
from tests.services.templates import Templates
from web.app import create_app
from web.guard.limited import WITHIN
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

#: What is planted in the bundles of the other model: producers share models, so only a limit to models hides it.
WORLDS = {
    "producer": (story.MODEL, Limits(producers=("local",))),
    "model": (MODEL, Limits(models=(story.MODEL,))),
}


@dataclass(frozen=True)
class World:
    """One service over the story and the other world, and what is in them."""

    client: TestClient
    database: Database
    mine: int
    theirs: list[int]
    limits: Limits

    def headers(self, name: str, scopes: tuple[str, ...], limits: Limits = NO_LIMITS) -> dict[str, str]:
        """A new key, sent."""
        return {"Authorization": f"Bearer {keys.create_key(self.database, name, scopes, limits=limits)}"}


@pytest.fixture(
    scope="module", params=["producer-sqlite", pytest.param("model-postgres", marks=pytest.mark.postgres)]
)
def world(
    request: pytest.FixtureRequest, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Both worlds; the mutable parts of the desk were used on the other one only."""
    kind, engine = request.param.split("-")
    folder = tmp_path_factory.mktemp("limited")
    with templates.copied(engine, folder / "web.db", "story", _fill) as copy:
        database = Database(copy)
        given = {
            "database_url": copy,
            "session_secret": SECRET,
            "state_dir": folder / "state",
            "recipe": Path("recipe.json"),
            "trail_reads": "off",
            "max_page_size": 4,  # a file is read in several pages, the later ones while it is sent
        }
        app = create_app(Settings.model_validate(given), database, metrics=Metrics(), queue=SilentProbe())
        client = TestClient(app, base_url=BASE_URL, raise_server_exceptions=False)
        mine = _first_answered(database)
        answer_story(database)
        before = newest(database)
        theirs = add_other_world(client, database, model=WORLDS[kind][0])
        planted = plant(database, before)
        assert len(planted) > 30, planted
        yield World(client, database, mine, theirs, WORLDS[kind][1])
        database.dispose()


def _first_answered(database: Database) -> int:
    with database.reading() as session:
        return session.scalars(select(Audit.id).where(Audit.state == "done").order_by(Audit.id)).first() or 0


def _numbers(database: Database, audit_id: int) -> dict[str, int]:
    """What stands in the addresses of an audit and of all that hangs on it."""
    with database.reading() as session:
        item = session.execute(
            select(ReviewItem.queue_id, ReviewItem.id).where(ReviewItem.audit_id == audit_id)
        ).first()
        cited = session.scalar(
            select(Citation.training_example_id).where(Citation.audit_id == audit_id, Citation.rank == 1)
        )
        other = session.scalar(select(Audit.id).where(Audit.id > audit_id).order_by(Audit.id.desc()))
        measured = session.scalar(select(Measurement.id))
        view = session.scalar(select(SavedView.id))
    return {
        "audit_id": audit_id, "other_audit_id": other or 1, "training_example_id": cited or 1, "rank": 1,
        "queue_id": item.queue_id if item else 1, "item_id": item.id if item else 1, "measurement_id": measured or 1, "view_id": view or 1,
    }  # fmt: skip


_QUERIES = {
    "/": ("", f"?text={CANARY}", f"?model={MODEL}", "?fdr=0.1", "?verdict=any", "?in_queue=canarytweety%20name%201", "?finding=1"),
    "/v1/audits": ("", f"?text={CANARY}", f"?in_cited={CANARY}", f"?bundle={BUNDLE}", "?sort=score"),
    "/v1/listing": ("?fdr=0.1",),
    "/v1/export.jsonl": ("?rows=audits", "?rows=citations", "?rows=examples", "?rows=verdicts"),
    "/v1/export.zip": ("?rows=audits", "?rows=citations"),
    "/v1/examples": (f"?example_id={CANARY}%20example_id%2061", "?example_id=other_source-0900"),
    "/examples": ("?example_id=other_source-0900", f"?text={CANARY}"),
    "/v1/examples/search": (f"?text={CANARY}", "?text=q"),
    "/v1/source": ("?source=other_source",),
    "/source": ("?source=other_source",),
    "/v1/report.html": ("", "?verdict=any"),
}  # fmt: skip


def _addresses(world: World) -> Iterator[tuple[str, str]]:
    """Every GET route with the numbers of the other world, then of one's own."""
    both = [_numbers(world.database, audit_id) for audit_id in (world.theirs[0], world.mine)]
    for route in sorted(paths_of("GET")):
        for numbers in both if "{" in route else both[:1]:
            path = _filled(route, numbers)
            for query in _QUERIES.get(route, ("",)):
                yield route, path + query


def _filled(route: str, numbers: dict[str, int]) -> str:
    known = {"name": BUNDLE} | numbers
    return re.sub(r"{(\w+)}", lambda found: str(known.get(found[1], 1)), route)


def _shown(answer: object) -> str:
    """All that an answer says, unpacked."""
    content: bytes = answer.content  # type: ignore[attr-defined] # httpx's
    if is_zipfile(BytesIO(content)):
        with ZipFile(BytesIO(content)) as file:
            content += b"".join(file.read(name) for name in file.namelist())
    return f"{answer.headers}{content.decode(errors='replace')}".lower()  # type: ignore[attr-defined] # as above


#: An address repeats what was asked for, and so does a form; nothing else may.
_ASKED = re.compile(r"\?[^\"\s]*|value=\"[^\"]*\"|“[^”]*”")


def test_no_route_shows_anything_of_the_others(world: World) -> None:
    """All read routes of the document and all pages, with every number of the other world; and what they show to a key without limits."""
    limited = world.headers("limited", ("read", "review", "measure"), world.limits)
    everything = world.headers("everything", ("read", "review", "measure"))
    leaking: dict[str, str] = {}
    open_to_all: set[str] = set()
    answered: set[str] = set()
    for route, path in _addresses(world):
        mine = world.client.get(path, headers=limited, follow_redirects=False)
        assert mine.status_code < 500, (path, mine.text)
        said = _without_question(_shown(mine), path)
        if (place := said.find(CANARY)) >= 0:
            leaking[path] = said[max(0, place - 120) : place + 60]
        if mine.status_code == 200:
            answered.add(route)
            assert ("GET", route) in WITHIN or route in _FOR_ANYBODY, route
        if route in SHOWING - open_to_all and CANARY in _shown(
            world.client.get(path, headers=everything)
        ).replace(path.lower(), ""):
            open_to_all.add(route)
    assert not leaking
    assert answered >= {path for method, path in WITHIN if method == "GET"} - _NOT_SHOWN, (
        "a limited key is of use"
    )
    assert open_to_all >= SHOWING, SHOWING - open_to_all
    document = set(world.client.get("/openapi.json").json()["paths"])
    assert {path for path in document if path in paths_of("GET")} <= {route for route, _ in _addresses(world)}


#: They tell nothing of outputs.
_FOR_ANYBODY = {"/healthz", "/readyz", "/sign-in"}
#: Their numbers lead to the other world only, or they lead on.
_NOT_SHOWN = {
    "/views/{view_id}", "/bundles/{name}", "/review/{queue_id}", "/review/{queue_id}/items/{item_id}", "/v1/measurements/{measurement_id}",
    "/v1/group-measurements/{measurement_id}", "/v1/review-queues/{queue_id}/items", "/v1/review-queues/{queue_id}/items/{item_id}",
    "/v1/review-queues/{queue_id}/people", "/audits/{audit_id}/compare/{other_audit_id}",
    "/v1/audits/{audit_id}/comparison/{other_audit_id}",
}  # fmt: skip
#: Where a key without limits is shown the canary: a walk that shows it nowhere would prove nothing.
SHOWING = {
    "/", "/audits/{audit_id}", "/audits/{audit_id}/text", "/examples/{training_example_id}", "/findings", "/fix-lists", "/review",
    "/v1/audits", "/v1/audits.csv", "/v1/audits.jsonl", "/v1/audits/{audit_id}", "/v1/audits/{audit_id}/hypotheticals",
    "/v1/audits/{audit_id}/reviews", "/v1/examples/{training_example_id}/cited-by", "/v1/export.jsonl", "/v1/export.zip",
    "/v1/findings", "/v1/fix-lists", "/v1/review-queues", "/v1/report.html",
}  # fmt: skip


def _without_question(said: str, path: str) -> str:
    """An answer without what it repeats of the question: the address, the name in it, and the values of a form."""
    said = said.replace(path.lower(), "").replace(f"no bundle with name &#39;{BUNDLE}&#39;", "")
    return _ASKED.sub("", said) if "?" in path else said


def test_pages_lead_nowhere_that_is_refused(world: World) -> None:
    """The navigation and the foot of a page offer a limited key what answers it."""
    limited = world.headers("looking", ("read", "review", "measure"), world.limits)
    page = world.client.get("/queue", headers=limited).text
    offered = set(re.findall(r'<a href="(/[^"]*)" data-go=', page))
    assert offered == {"/", "/review", "/bundles", "/queue"}
    assert 'href="/trail"' not in page


def test_counts_are_those_of_the_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count tells of the others as a text does, and what is counted for one key is not kept for another."""
    monkeypatch.setattr(listings, "KEPT_FROM_S", -1.0)
    limited = world.headers("counting", ("read",), world.limits)
    everything = world.headers("counting-all", ("read",))
    few, all_of_them = (
        world.client.get("/v1/listing?fdr=0.1", headers=one).json() for one in (limited, everything)
    )
    assert 0 < few["matching"] < all_of_them["matching"]
    assert world.client.get("/v1/listing?fdr=0.1", headers=limited).json()["matching"] == few["matching"]
    states = [
        sum(world.client.get("/v1/queue", headers=one).json()["states"].values())
        for one in (limited, everything)
    ]
    assert 0 < states[0] < states[1]
    listed = [
        json.loads(line) for line in world.client.get("/v1/audits.jsonl", headers=limited).text.splitlines()
    ]
    assert {one["audit_id"] for one in listed}.isdisjoint(world.theirs)
    assert len(listed) == few["matching"] > 8, "three pages"


def test_nothing_is_done_to_the_others(world: World) -> None:
    """A verdict, a measurement and a supposed output need an audit that is seen."""
    limited = world.headers("acting", ("read", "review", "measure"), world.limits)
    for audit_id, expected in ((world.theirs[0], {404}), (world.mine, {201, 202})):
        for path, body in (
            (f"/v1/audits/{audit_id}/reviews", {"verdict": "confirmed"}),
            (f"/v1/audits/{audit_id}/citations/1/measure?method=one-step", None),
            (f"/v1/audits/{audit_id}/hypotheticals", {"completion": "No."}),
        ):
            answer = world.client.post(path, json=body, headers=limited)
            assert answer.status_code in expected, (path, answer.text)
    refused = world.client.post("/v1/bulk", json={"action": "requeue"}, headers=limited)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "beyond_limits")


def test_forms_that_need_two_scopes_take_a_limited_key(world: World) -> None:
    """Whoever sends a form is looked up once for each scope, the second time among all keys as well: with a key, and in its session."""
    key = keys.create_key(world.database, "at-the-desk", ("read", "review", "measure"), limits=world.limits)
    program, browser = (TestClient(world.client.app, base_url=BASE_URL) for _ in range(2))
    program.headers["Authorization"] = f"Bearer {key}"
    sign_in(browser, key=key)
    page = f"/audits/{world.mine}"
    for number, one in enumerate((program, browser)):
        sent = send(one, page, f"{page}/hypotheticals", {"completion": f"Another answer {number}."})
        assert sent.status_code == 303, sent.text
        # The recipe of these tests is no file: what matters is that the form was taken.
        for way in ("measure", "citations/1/measure"):
            answer = send(one, page, f"{page}/{way}", {"source": "web"})
            assert answer.status_code not in {401, 403, 404}, (way, answer.text)
        theirs = f"/audits/{world.theirs[0]}"
        assert send(one, page, f"{theirs}/hypotheticals", {"completion": "No."}).status_code == 404


def test_a_limited_producer_sends_its_models_only(world: World) -> None:
    """Nothing of a list is stored where one record is of another model."""
    limits = Limits(models=(story.MODEL,))
    sending = world.headers("sending", ("ingest",), limits)
    mine = {"model": story.MODEL, "prompt": "p", "completion": "c"}
    answer = world.client.post("/v1/flagged", json=[mine, mine | {"model": MODEL}], headers=sending)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "beyond_limits")
    assert world.client.post("/v1/flagged", json=mine, headers=sending).status_code == 202
    assert world.client.get("/v1/audits", headers=sending).status_code == 403


def test_a_key_of_a_queue_sees_what_stands_in_it(world: World) -> None:
    """And nothing of the story, which stands in none; a session is no wider than its key."""
    with world.database.reading() as session:
        name = session.scalars(select(Base.metadata.tables["review_queue"].c.name)).first()
    queued = world.headers("queued", ("read", "review"), Limits(queues=(name or "",)))
    listed = world.client.get("/v1/audits", headers=queued).json()["items"]
    assert {one["audit_id"] for one in listed if one["members"] is None} == set(world.theirs)
    assert [one["members"] for one in listed if one["members"]] == [2], (
        "a group whose outputs all stand in it"
    )
    assert world.client.get(f"/v1/audits/{world.mine}", headers=queued).status_code == 404
    taken = world.client.post("/v1/review-queues/1/next", headers=queued)
    assert taken.status_code in {200, 404}, taken.text
    assert [one["name"] for one in world.client.get("/v1/review-queues", headers=queued).json()["items"]] == [
        name
    ]


def test_every_table_is_limited_or_named_as_open() -> None:
    """A new table is empty for a limited key until somebody says how it is limited; one that hangs on an output is found by its keys."""
    tables = set(Base.metadata.tables)
    assert set(plan()) | OPEN == tables | set(VIEWS)
    assert not OPEN & set(plan())
    assert next(iter(plan())) == ROOT
    seen: set[str] = set()
    for name, limited in plan().items():
        assert set(limited.needs) <= seen, f"{name} stands before what it needs"
        seen.add(name)
