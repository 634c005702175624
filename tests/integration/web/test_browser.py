"""A real browser: from the list to an audit to an example, live refresh, keys, and a content policy that nothing breaks.

The service runs in a real server here, so that bodies over the limit are seen on a real connection too.
"""

import re

import httpx
import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from db.models import Bundle
from db.queues.audit_queue import AuditQueue, Finished
from tests.integration.web import story
from tests.integration.web.sequel import BEFORE, answer_one, with_evidence

#: The page of the story's bundle.
CARD = f"/bundles/{BEFORE}"


@pytest.mark.browser
def test_list_to_audit_to_example_and_back(server, page, complaints):
    """The main job of an auditor, by clicking, without one complaint of the browser."""
    page.goto(server)
    expect(page.locator("table.audits tbody tr")).to_have_count(13)
    page.get_by_role("link", name="refund_promise").last.click()
    expect(page.get_by_role("heading", name="refund_promise")).to_be_visible()
    expect(page.locator(".citation:not(.opponent)")).to_have_count(10)
    expect(page.get_by_role("heading", name="What a citation does not prove")).to_be_visible()
    page.locator(".to-example a").first.click()
    expect(page.get_by_role("heading", name="Outputs that cite it")).to_be_visible()
    page.locator(".cited .row-link").first.click()
    expect(page.locator(".citation:target")).to_have_count(1)
    for name in ("Sources", "Bundles", "Queue", "Audits"):
        page.get_by_role("navigation", name="Main").get_by_role("link", name=name).click()
        expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    assert complaints == []


@pytest.mark.browser
def test_filters_make_a_link_that_can_be_shared(server, page, complaints):
    """The form's address shows the same list elsewhere; empty fields do no harm."""
    page.goto(server)
    page.get_by_label("Reason").fill("refund_promise")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="Clear")).to_be_visible()
    rows = page.locator("table.audits tbody tr").count()
    assert 0 < rows < 13
    page.goto(page.url)
    assert page.locator("table.audits tbody tr").count() == rows
    assert complaints == []


@pytest.mark.browser
def test_the_list_follows_the_work(server, page, complaints, sqlite_story):
    """A pending audit becomes done on the page by itself; a pause keeps the page still."""
    _, database = sqlite_story
    page.goto(f"{server}/?state=pending")
    expect(page.locator("table.audits tbody tr")).to_have_count(2)
    claim = AuditQueue(database).claim(1, limit=1, owner="w", lease_s=60)
    assert claim
    answer = story.attribution(claim.audits[0].record, story.corpus(60))
    AuditQueue(database).finish([Finished(claim.audits[0], answer, 1)])
    expect(page.locator("table.audits tbody tr")).to_have_count(1, timeout=15_000)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert complaints == []


@pytest.mark.browser
def test_keys(server, page, complaints):
    """Search, rows and opening one without a mouse."""
    page.goto(server)
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Text")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("[data-row]").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server}/audits/13")
    assert complaints == []


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(420, "light"), (1400, "dark")])
def test_nothing_is_wider_than_the_window(server, browser, width, scheme):
    """No page scrolls sideways on a phone."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for path in (
        "/",
        "/audits/1",
        "/audits/9",
        "/examples/12",
        "/sources",
        "/bundles",
        CARD,
        "/queue",
        "/review",
        "/review/new?flag_reason=refund_promise",
        "/review/put",
        "/review/agreement",
        "/sign-in",
        "/nothing",
    ):
        page.goto(server + path)
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1], path
    context.close()


@pytest.mark.browser
def test_plots_of_a_card_are_drawn_and_run_nothing(server, page, complaints, sqlite_story):
    """The content policy lets the image through, a script inside of it does not run, and the browser complains of nothing."""
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="40"><rect width="80" height="40"/>'
        "<script>top.document.title='owned'</script></svg>"
    )
    with sqlite_story[1].writing() as session:
        session.execute(update(Bundle).values(card={"lds": 0.6, "plots": [{"title": "LDS", "svg": svg}]}))
    page.goto(server + CARD)
    image = page.get_by_role("img", name="LDS")
    expect(image).to_be_visible()
    assert image.evaluate("one => one.naturalWidth") == 80
    assert page.title() != "owned"
    assert complaints == []


@pytest.mark.browser
def test_attacks_do_nothing_in_a_browser(server, page, complaints):
    """What a model said stays text, also when it is markup."""
    attack = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    value = {
        "model": story.MODEL,
        "prompt": attack,
        "completion": attack,
        "reason": attack,
        "labels": {attack: attack},
    }
    number = httpx.post(f"{server}/v1/flagged", json=value).json()["results"][0]["audit_id"]
    for path in ("/", f"/audits/{number}"):
        page.goto(server + path)
        expect(page.get_by_text("owned").first).to_be_visible()
        assert page.title() != "owned"
    assert complaints == []


def test_a_body_over_the_limit_on_a_real_connection(server):
    """The client reads the 413 although it was still sending."""
    try:
        answer = httpx.post(
            f"{server}/v1/flagged", content=b"x" * 10_000_000, headers={"Content-Type": "application/json"}
        )
    except httpx.WriteError as error:
        pytest.fail(f"the server closed before its answer could be read: {error!r}")
    assert answer.status_code == 413
    assert httpx.get(f"{server}/healthz").status_code == 200


@pytest.mark.browser
def test_the_desk_by_keyboard_alone(server, page, complaints, sqlite_story):
    """A name, a queue, blind verdicts by the keys 1 to 4 with one taken back, then an audit with a verdict and a comment on words."""
    page.goto(f"{server}/sign-in?next=/review/new")
    expect(page.locator(":focus")).to_have_attribute("name", "name")
    page.keyboard.type("ann")
    page.keyboard.press("Enter")
    page.get_by_label("Name").fill("blind")
    page.get_by_label("Blind:").press("Space")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="blind")).to_be_visible()
    page.keyboard.press("n")
    for left in range(6, 0, -1):
        expect(page.get_by_text(f"{left} of 6 to judge")).to_be_visible()
        page.keyboard.press("3")
    expect(page.get_by_text("all judged", exact=True)).to_be_visible()
    page.keyboard.press("u")
    expect(page.get_by_text("1 of 6 to judge")).to_be_visible()
    page.keyboard.press("1")
    expect(page.locator('[aria-pressed="true"]').get_by_text("Confirmed cause")).to_have_count(1)
    page.goto(f"{server}/audits/2")
    page.keyboard.press("2")
    expect(page.locator(".audit-verdict .chip")).to_have_text("ann: plausible")
    page.keyboard.press("j")
    page.keyboard.press("3")
    expect(page.locator("#citation-1 .chip")).to_have_text("ann: unrelated")
    page.locator(".turn-flagged .text").dblclick(position={"x": 20, "y": 10})
    page.keyboard.press("c")
    page.keyboard.type("Look here.")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".history blockquote")).to_have_text("Puncture")
    assert complaints == []


@pytest.mark.browser
def test_words_and_citations_light_each_other_up(server, page, sqlite_story, quick_story):
    """By focus and by pointing, both ways; Enter and a click lead to the strongest citation, but not while words are selected."""
    number = answer_one(quick_story, sqlite_story[1], with_evidence)
    page.goto(f"{server}/audits/{number}")
    words = page.locator("[data-ranks]").first
    words.focus()
    expect(page.locator("#citation-1")).to_have_class(re.compile("lit-on"))
    expect(page.locator("#citation-2")).not_to_have_class(re.compile("lit-on"))
    page.locator("#citation-1 .rank").hover()
    expect(words).to_have_class(re.compile("lit-on"))
    expect(page.locator(".turn-flagged")).to_have_class(re.compile("lighting"))
    page.locator("#citation-2 .rank").hover()
    expect(words).not_to_have_class(re.compile("lit-on"))
    words.dblclick(position={"x": 8, "y": 8})
    assert page.evaluate("document.getSelection().toString().trim()")
    words.focus()
    page.evaluate("document.getSelection().removeAllRanges()")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server}/audits/{number}#citation-1")
    expect(page.locator("#citation-1:target")).to_have_count(1)


@pytest.mark.browser
def test_what_was_found_and_how_is_in_view(server, page, sqlite_story, quick_story):
    """At 1280 x 900 nobody scrolls for the conclusion, how it was computed, the output and the first citation; a long output changes nothing of that."""
    page.set_viewport_size({"width": 1280, "height": 900})
    long = "\u05e9\u05dc\u05d5\u05dd refund every product. " * 2_500
    for completion in (None, long):
        number = answer_one(quick_story, sqlite_story[1], with_evidence, completion=completion)
        page.goto(f"{server}/audits/{number}")
        for place in (
            ".conclusion-text",
            ".computed",
            ".turn-flagged .turn-role",
            "#citation-1 .citation-head",
        ):
            box = page.locator(place).bounding_box()
            assert box is not None
            assert box["y"] + box["height"] < 900, place
        sizes = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert sizes[0] <= sizes[1]
