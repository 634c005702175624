"""Reports: one file that says everything, loads nothing, runs nothing, and lets no text of others do anything."""

import base64
import hashlib
import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from sqlalchemy import update
from starlette.testclient import TestClient

from db.models import Audit, Citation, FlaggedOutput, FlaggedText, TrainingExample
from db.session import Database
from tests.integration.db.builders import recorded_statements
from tests.integration.web.journals import moved_reads
from tests.integration.web.story import Story
from wherefrom.settings import Settings

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'></style><svg onload=alert(1)>\u202e"


@pytest.fixture
def hostile(quick_story: Story, sqlite_story: tuple[Settings, Database]) -> int:
    """An audit in which every text of others is an attack; its number."""
    number = quick_story.audit_ids[0]
    with sqlite_story[1].writing() as session:
        output = session.get_one(Audit, number).flagged_output_id
        turns = [{"role": "user", "content": ATTACK}]
        session.execute(
            update(FlaggedText)
            .where(FlaggedText.flagged_output_id == output)
            .values(completion=ATTACK, turns=turns)
        )
        session.execute(
            update(FlaggedOutput)
            .where(FlaggedOutput.id == output)
            .values(reason=ATTACK, labels={ATTACK: ATTACK})
        )
        session.execute(update(TrainingExample).values(prompt=ATTACK, completion=ATTACK))
        session.execute(update(Citation).values(source=ATTACK))
        session.execute(
            update(Audit).where(Audit.id == number).values(noise_level=0.1, noise_best=0.2, top_source=ATTACK)
        )
    return number


def test_a_report_of_one_audit_says_what_its_page_says(quick_client: TestClient, quick_story: Story) -> None:
    """Conclusion, output, every citation, the plot with its numbers, what a citation does not prove, and where it comes from."""
    number = quick_story.audit_ids[0]
    answer = quick_client.get(f"/v1/report.html?audit={number}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith('attachment; filename="wherefrom-report-')
    detail = quick_client.get(f"/v1/audits/{number}").json()
    page = answer.text
    assert all(one["example_id"] in page for one in (*detail["citations"], *detail["opponents"]))
    for expected in (
        "What a citation does not prove",
        f"http://127.0.0.1:8077/audits/{number}",
        "Scores against noise",
        detail["conclusion"]["because"][:30],
        "wherefrom 0.1.0",
        "what is missing from this audit",
    ):
        assert expected.lower() in page.lower(), expected
    assert "Together" not in page


def test_a_report_of_an_incident_has_what_its_audits_share(
    quick_client: TestClient, quick_story: Story
) -> None:
    """Time, sources, culprits, each audit; of a filter, of numbers in their order, of a review queue."""
    page = quick_client.get("/v1/report.html?flag_reason=refund_promise&title=Refunds in January").text
    assert '<h1 dir="auto">Refunds in January</h1>' in page
    assert "Outputs over time by the source of their first citation" in page
    assert "vendor_batch_07" in page.split("Culprits")[1]
    numbers = re.findall(r'<article class="audit" id="audit-(\d+)">', page)
    listed = quick_client.get("/v1/audits?flag_reason=refund_promise").json()["items"]
    assert numbers == [str(one["audit_id"]) for one in listed]
    first, second = quick_story.audit_ids[:2]
    two = quick_client.get(f"/v1/report.html?audit={second}&audit={first}").text
    assert re.findall(r'<article class="audit" id="audit-(\d+)">', two) == [str(second), str(first)]
    made = quick_client.post("/v1/review-queues", json={"name": "r", "rule": {"flag_reason": "rude_tone"}})
    assert made.status_code == 201
    assert "rude_tone" in quick_client.get("/v1/report.html?in_queue=r").text
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "plots of several audits share an id"


def test_a_report_stands_alone(quick_client: TestClient, hostile: int) -> None:
    """No script, no resource, no form, no style but its own, which the policy names by its hash; hostile texts are text."""
    page = quick_client.get(
        f"/v1/report.html?audit={hostile}&title={ATTACK.replace('<', '%3C').replace('#', '')}"
    ).text
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"<(?:link|iframe|object|form|input|button|base|foreignObject)\b", page)
    assert not re.search(r"<[a-z][^>]*\s(?:on[a-z]+|style|src|srcset|action)\s*=", page)
    assert {one.split("/")[2] for one in re.findall(r'href="(http[^"]+)"', page)} == {"127.0.0.1:8077"}
    assert "url(" not in page
    assert "@import" not in page
    assert page.count("</style>") == 1
    css = page.split("<style>")[1].split("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert f"style-src &#39;sha256-{digest}&#39;" in page or f"style-src 'sha256-{digest}'" in page
    assert "\u202e" not in page


def test_a_browser_runs_nothing_of_it(quick_client: TestClient, hostile: int, browser: Browser) -> None:
    """Opened as the file that it is: its style holds, no request leaves, nothing is refused by its policy, nothing happens."""
    html = quick_client.get(f"/v1/report.html?audit={hostile}").text
    page = browser.new_page()
    asked: list[str] = []
    told: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    page.on("console", lambda one: told.append(one.text))
    page.on("dialog", lambda one: told.append("dialog"))
    page.set_content(html)
    assert page.evaluate("getComputedStyle(document.querySelector('.report')).maxWidth") == "980px"
    assert [one for one in asked if not one.startswith(("about:", "data:"))] == []
    assert told == []
    page.close()


@pytest.mark.browser
@pytest.mark.timeout(300)
@pytest.mark.parametrize("query", ["audit={number}", "flag_reason=refund_promise&title=June"])
def test_axe_finds_nothing_in_the_file(
    quick_client: TestClient, quick_story: Story, browser: Browser, query: str
) -> None:
    """Of any level, in light and in dark: of one audit, and of an incident. Its own script would be refused by the file's policy, so axe stands beside it."""
    number = quick_story.audit_ids[0]
    html = quick_client.get(f"/v1/report.html?{query.format(number=number)}").text
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.set_content(html)
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        told = [(one["id"], one["nodes"][0]["html"][:200]) for one in found]
        context.close()
        assert told == [], scheme


def test_the_trail_and_the_refusals(
    quick_client: TestClient, quick_story: Story, sqlite_story: tuple[Settings, Database]
) -> None:
    """Who took a report is kept; what cannot be reported is told."""
    number = quick_story.audit_ids[0]
    quick_client.get(f"/v1/report.html?audit={number}")
    events = moved_reads(*sqlite_story, least=2)
    assert "export:report" in {one.subject for one in events}
    assert number in {read for one in events for read in one.payload.get("audits", ())}
    for query, status in (
        (f"audit={number}&state=done", 422),
        ("audit=99999", 404),
        ("audit=0", 422),
        ("flag_reason=nothing", 404),
        ("&".join("audit=1" for _ in range(51)), 422),
    ):
        assert quick_client.get(f"/v1/report.html?{query}").status_code == status, query
    assert f'/v1/report.html?audit={number}"' in quick_client.get(f"/audits/{number}").text
    assert 'action="/v1/report.html"' in quick_client.get("/export").text


def test_reviews_and_bundles_are_read_once(quick_client: TestClient, quick_story: Story) -> None:
    """Those of many audits as those of one."""
    number = quick_story.audit_ids[0]
    reads = []
    for query in (f"audit={number}", "flag_reason=refund_promise"):
        with recorded_statements() as statements:
            answer = quick_client.get(f"/v1/report.html?{query}")
        assert answer.status_code == 200, answer.text
        tables = ("review", "bundle")
        reads.append([sum(f"\nFROM {name} " in one for one in statements) for name in tables])
    assert reads[0] == reads[1]
    assert all(reads[0])
