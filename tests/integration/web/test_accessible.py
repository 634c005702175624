"""axe-core finds nothing of any level on any page, in light and in dark, with everything on it that a page can hold."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from db import fix_lists, fix_rows, people, what_ifs
from db.reviews import Reviewer
from db.session import Database
from tests.integration.web import story
from tests.integration.web.test_evidence_page import answer_one, with_evidence
from tests.integration.web.test_finding_pages import group_story
from wherefrom.records import AuditFilter, FixAction, FixChange, FixListDraft, Via
from wherefrom.settings import Settings

#: The page of the story's bundle.
CARD = "/bundles/b-5f0c9a7d31e2"
PAGES = (
    "/",
    "/?flag_reason=refund_promise&fdr=0.1",
    "/?text=nothing-has-this",
    "/audits/1",
    "/audits/9",
    "/audits/13",
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
    "/bundles",
    "/trail",
    CARD,
    "/queue",
    "/review",
    "/review/new?flag_reason=refund_promise",
    "/review/put",
    "/review/agreement",
    "/sign-in",
    "/nothing",
)
#: Pages that say that there is nothing.
MISSING = {"/nothing", "/examples?example_id=none"}


@pytest.fixture
def rich(sqlite_story: tuple[Settings, Database], quick_story: story.Story) -> int:
    """An audit with spans, confidences, effects and near-duplicates."""
    return int(answer_one(quick_story, sqlite_story[1], with_evidence))


@pytest.fixture
def fix_list(sqlite_story: tuple[Settings, Database]) -> None:
    """A fix list with rows of a source, and a what-if that waits."""
    database = sqlite_story[1]
    ann = Reviewer(people.choose_local(database, "ann").ref, Via.LOCAL)
    number = fix_lists.create_list(database, FixListDraft(name="refunds", note="before January"), by=ann)
    change = FixChange(source="vendor_batch_07", action=FixAction.REMOVE, reason="promises refunds")
    fix_rows.change_rows(database, number, change, by=ann)
    what_ifs.ask(database, number, AuditFilter(), most=10, by="ann")


@pytest.fixture
def findings(sqlite_story: tuple[Settings, Database]) -> None:
    """Two findings."""
    assert len(group_story(sqlite_story[1])) == 2


@pytest.fixture(params=["light", "dark"])
def themed(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page in one colour scheme, as wide as a laptop."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param)
    yield context.new_page()
    context.close()


def faults(page: Page) -> list[str]:
    """What axe finds, each with the element and why."""
    found: dict[str, Any] = Axe().run(page, options={"resultTypes": ["violations"]}).response
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} {node['failureSummary'][:300]}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.browser
@pytest.mark.usefixtures("fix_list", "findings")
def test_no_page_has_a_fault(server: str, themed: Page, rich: int) -> None:
    """Every page, an audit with everything on it with its folds open, and an audit as a reviewer sees it."""
    told: list[str] = []
    for path in (*PAGES, f"/audits/{rich}", f"/audits/{rich}/compare/1"):
        answer = themed.goto(server + path)
        assert answer is not None
        assert answer.ok or path in MISSING, path
        themed.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        told += [f"{path}: {one}" for one in faults(themed)]
    assert not told, "\n".join(told)
