"""axe-core finds nothing of any level on any page, in light and in dark, and no text of a stranger does anything there.

Every page is visited once in a real browser, with everything on it that a page can hold; the tests look at what was found.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page
from sqlalchemy import update
from starlette.routing import Match

from db import signs
from db.access import people
from db.clock import db_after
from db.models import ProcessSign
from db.remedies import fix_lists, fix_rows, what_ifs
from db.reviewing import bulk
from db.reviewing.reviews import Reviewer
from db.signs import Sign
from tests.integration.web import hostile
from tests.integration.web.conftest import Desk
from tests.integration.web.routes import all_routes
from tests.integration.web.sequel import (
    AFTER,
    BEFORE,
    answer_all,
    answer_one,
    group_story,
    next_model,
    with_evidence,
)
from wherefrom.records import AuditFilter, FixAction, FixChange, FixListDraft, Via

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: What axe is asked for.
VIOLATIONS: dict[str, Any] = {"resultTypes": ["violations"]}
#: Its rules that look at colours.
COLOUR_RULES = ["color-contrast", "link-in-text-block"]

#: The page of the story's bundle.
CARD = f"/bundles/{BEFORE}"
#: What somebody sees who has not said who they are.
UNNAMED = ("/audits/1", "/culprits", "/review", "/sign-in")
PAGES = (
    "/",
    "/?flag_reason=refund_promise&fdr=0.1",
    "/?text=nothing-has-this",
    "/audits/9",
    "/audits/13",
    "/compare",
    f"/compare?bundle={BEFORE}&other={AFTER}",
    f"/bulk?under={AFTER}",
    "/examples/12",
    "/examples?example_id=none",
    "/sources",
    "/source?source=vendor_batch_07",
    "/culprits",
    "/fix-lists",
    "/fix-lists/1",
    "/fix-lists/put?source=vendor_batch_07",
    "/what-ifs/1",
    "/findings",
    "/findings/1",
    "/bulk",
    "/export",
    "/bundles",
    "/trail",
    "/erasing",
    "/keys",
    CARD,
    "/queue",
    "/today",
    "/review",
    "/review/new?flag_reason=refund_promise",
    "/review/put",
    "/review/agreement",
    "/sign-in",
    "/nothing",
)
_ATTACK = urlencode({"text": hostile.SHORT})
#: Addresses that hold an attack; what is shown of it is text.
HOSTILE = (
    f"/?{_ATTACK}&{urlencode(dict.fromkeys(('flag_reason', 'source', 'model', 'since', 'score_min'), hostile.SHORT))}",
    f"/?{urlencode({'source': hostile.SHORT, 'model': hostile.SHORT})}",
    f"/examples?{_ATTACK}",
    f"/source?{urlencode({'source': hostile.SHORT})}",
    f"/culprits?{urlencode({'source': hostile.SHORT})}",
    f"/review/new?{urlencode({'flag_reason': hostile.SHORT})}",
    f"/fix-lists/put?{urlencode({'whole_source': hostile.SHORT})}",
    f"/bundles/{quote(hostile.SHORT, safe='')}",
    f"/sign-in?{urlencode({'next': hostile.SHORT})}",
    f"/{quote(hostile.SHORT, safe='')}",
)
#: Pages that answer with an error, and say so.
MISSING = {"/nothing", "/examples?example_id=none", HOSTILE[0], HOSTILE[-1]}
#: What a page is made of that attacks would like to be: nothing of it is there, unless it is ours.
FOREIGN = """[...document.querySelectorAll(
  'script:not([src^="/static/"]), iframe, base, object, embed, style, math, img:not([src^="data:image/svg"]), ' +
  'link:not([href^="/static/"]), [href^="javascript:" i], [action^="javascript:" i], [style], svg[onload]')]
  .concat([...document.querySelectorAll('*')].filter(one => [...one.attributes].some(it => it.name.startsWith('on'))))
  .map(one => one.outerHTML.slice(0, 200)).concat(typeof owned === 'undefined' ? [] : ['owned'])"""


@dataclass
class Visits:
    """What was found on all pages."""

    #: By axe, each with its page, element and reason.
    faults: list[str] = field(default_factory=list)
    #: Elements and scripts that no page of ours has.
    foreign: list[str] = field(default_factory=list)
    #: What the browser and its content policy complained of.
    complaints: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def full_desk(desk: Desk) -> tuple[Desk, list[str], list[str]]:
    """The desk with all that there is, and the pages beside `PAGES` that show it; the last ones are as others are, but for their texts."""
    database = desk.database
    ann = Reviewer(people.choose_local(database, "ann").ref, Via.LOCAL)
    number = fix_lists.create_list(database, FixListDraft(name="refunds", note="before January"), by=ann)
    change = FixChange(source="vendor_batch_07", action=FixAction.REMOVE, reason="promises refunds")
    fix_rows.change_rows(database, number, change, by=ann)
    what_ifs.ask(database, number, AuditFilter(), most=10, by="ann")
    rich = answer_one(desk.story, database, with_evidence)
    assert len(group_story(database)) == 2
    following = next_model(database)
    bulk.reaudit(database, AuditFilter(bundle=BEFORE), following)
    answer_all(database, following)
    for pid in (1, 2):
        signs.give_sign(database, Sign(f"w{pid}", "attribute", "worker", pid, (following,)))
    with database.writing() as session:
        session.execute(update(ProcessSign).where(ProcessSign.pid == 2).values(seen_at=db_after(-90)))
    audit, *others = hostile.fill(database)
    return desk, [f"/audits/{rich}", f"/audits/{rich}/compare/1", *others], [audit, *HOSTILE]


@pytest.fixture(scope="module")
def visits(full_desk: tuple[Desk, list[str], list[str]], browser: Browser) -> Iterator[Visits]:
    """All pages, seen as somebody without a name and as an auditor, with every fold open and a citation ticked."""
    desk, more, alike = full_desk
    found = Visits()
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    _listen(page, found)
    for path in UNNAMED:
        _visit(page, desk.url, path, found)
        _ask_axe(page, path, found)
    page.get_by_label("Name").fill("ann")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{desk.url}/")
    for path in (*PAGES, *more):
        _visit(page, desk.url, path, found)
        _ask_axe(page, path, found)
    for path in alike:
        _visit(page, desk.url, path, found)
    yield found
    context.close()


def _listen(page: Page, found: Visits) -> None:
    """Note what a page does beyond showing itself."""

    def on_dialog(one: Dialog) -> None:
        found.foreign.append(f"{page.url}: dialog {one.message}")
        one.dismiss()

    def on_console(one: ConsoleMessage) -> None:
        if _is_complaint(one):
            found.complaints.append(f"{page.url}: {one.text}")

    page.on("dialog", on_dialog)
    page.on("console", on_console)
    page.on("pageerror", lambda one: found.complaints.append(str(one)))


def _is_complaint(message: ConsoleMessage) -> bool:
    """Not that a page that is missing answers with an error."""
    return (
        message.type in {"error", "warning"} and "the server responded with a status of" not in message.text
    )


def _visit(page: Page, url: str, path: str, found: Visits) -> None:
    answer = page.goto(url + path)
    assert answer is not None
    assert answer.ok or path in MISSING, (path, answer.status)
    found.paths.append(path)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.evaluate("document.querySelector('.tick-citation')?.click()")
    found.foreign += [f"{path}: {one}" for one in page.evaluate(FOREIGN)]


def _ask_axe(page: Page, path: str, found: Visits) -> None:
    found.faults += [f"{path}: {one}" for one in faults(Axe().run(page, options=VIOLATIONS).response)]
    page.emulate_media(color_scheme="dark")
    # The other rules do not depend on colours, and have just been asked.
    dark = page.evaluate("options => axe.run(document, options)", {**VIOLATIONS, "runOnly": COLOUR_RULES})
    found.faults += [f"{path}, dark: {one}" for one in faults(dark)]
    page.emulate_media(color_scheme="light")


def faults(answer: dict[str, Any]) -> list[str]:
    """What axe found, each with the element and why."""
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in answer["violations"]
        for node in one["nodes"]
    ]


def test_no_page_has_a_fault(visits: Visits) -> None:
    """Of any level, in light and in dark."""
    assert not visits.faults, "\n".join(visits.faults)


def test_hostile_texts_stay_text(visits: Visits) -> None:
    """Whatever field they stand in: no element of theirs, no script, no dialog, and the content policy had nothing to stop."""
    assert not visits.foreign, "\n".join(visits.foreign)
    assert not visits.complaints, "\n".join(visits.complaints)


def test_no_page_was_left_out(visits: Visits) -> None:
    """Every route that answers with a page was asked for; a new one belongs into `PAGES`, with something on it. What the API gives out is a file to be kept."""
    routes = all_routes()
    answers = {one.path for one in routes if one.endpoint.__annotations__["return"] is HTMLResponse}
    pages = {one for one in answers if not one.startswith("/v1/")}
    seen = {_route_of(path.partition("?")[0], routes) for path in visits.paths}
    assert sorted(pages - seen) == []


def _route_of(path: str, routes: list[APIRoute]) -> str:
    """The route that answers; the first one that matches, as in the application."""
    scope = {"type": "http", "method": "GET", "path": path}
    return next((one.path for one in routes if one.matches(scope)[0] is Match.FULL), "")
