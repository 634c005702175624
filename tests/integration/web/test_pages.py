"""The pages: complete without script, escaped, helpful when empty."""

import re
from html import unescape
from html.parser import HTMLParser

import pytest

from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader
from db.storing import intake
from tests.integration.db import builders as db_builders
from tests.integration.db.builders import register
from tests.integration.web import story
from wherefrom.records import FILTER_NAMES, FlaggedRecord, Message, Overlap, Role, Span, filter_help

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>{{7*7}}"


#: All elements of our own templates that could be confused with somebody's: `img` and `iframe` are not among them.
KNOWN_TAGS = frozenset(
    """a article aside b blockquote body button caption circle code datalist dd details dialog div dl dt em fieldset footer form h1 h2 h3 head header
    html input kbd label legend li link main mark meta nav ol option p path pre rect script section select small span summary svg
    table tbody td textarea th thead time title tr ul""".split()  # noqa: SIM905 - a list of words
)


class Tags(HTMLParser):
    """The elements and attributes of a page, as a browser would find them."""

    def __init__(self, html):
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        """Remember one element."""
        assert tag != "script" or dict(attrs)["src"].startswith("/static/")
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)


def found(pattern, html):
    """The first group of the first match."""
    match = re.search(pattern, html)
    assert match, pattern
    return match.group(1)


def page(client, path, status=200):
    """The HTML of a page."""
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def test_list_shows_states_and_rows(client, stored_story):
    """The strip counts, the table lists, links lead to audits."""
    html = page(client, "/")
    assert html.count('class="row-link"') == 13
    assert 'href="/?state=done"' in html
    assert f'href="/audits/{stored_story.audit_ids[0]}"' in html
    assert "data-refresh-seconds" in html


def test_filters_stand_in_the_address_and_in_the_form(client, stored_story):
    """A shared link shows the same list and the same form."""
    html = page(client, "/?flag_reason=refund_promise&severity=high&state=done")
    assert 'value="refund_promise"' in html
    assert "<option selected>high</option>" in html
    assert "/v1/audits.csv?state=done&amp;flag_reason=refund_promise&amp;severity=high" in html


def test_the_form_asks_for_every_filter(client, stored_story):
    """In the words of the one list; the state stands in the strip, and is kept when the form is sent."""
    form = found(r"(?s)<form class=\"filters audit-filters\".*?(<.*?)</form>", page(client, "/?state=done"))
    assert set(re.findall(r'name="(\w+)"', form)) == {*FILTER_NAMES, "fdr", "sort"}
    titles = set(map(unescape, re.findall(r'class="field[^"]*" title="([^"]*)"', form)))
    assert titles >= {filter_help(name) for name in FILTER_NAMES if name != "state"}


def test_pages_lead_on_and_back(client, stored_story):
    """Older, then the newest again, with the filters kept."""
    html = page(client, "/?limit=4&channel=stream")
    older = unescape(found(r'href="([^"]+)" rel="next"', html))
    assert "channel=stream" in older
    html = page(client, older)
    assert 'rel="first"' in html
    assert "data-refresh-seconds" not in html


def test_audit_shows_output_and_citations(client, stored_story):
    """Prompt turns, completion, ranked citations, opponents, and what it all does not prove."""
    html = page(client, f"/audits/{stored_story.audit_ids[0]}")
    assert html.count('class="citation"') == 10
    assert html.count('class="citation opponent"') == 2
    folded = found(r'(?s)<details class="opponents">(.*?)</details>', html)  # closed until somebody opens it
    assert folded.count('class="citation opponent"') == 2
    assert "What a citation does not prove" in html
    assert "wherefrom calibrate" in html
    assert '<mark class="shared">' in html
    assert "Acceptable answer" in html


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("pending", "waiting for a worker"),
        ("rejected", "output_too_long"),
        ("dead", "python -m worker retry"),
        ("running", "computing the citations"),
    ],
)
def test_unfinished_and_failed_audits_say_what_to_do(client, stored_story, state, words):
    """Every state has its own explanation."""
    audits = client.get("/v1/audits", params={"state": state}).json()["items"]
    audit = next(one for one in audits if one["code"] != "unknown_model")
    html = page(client, f"/audits/{audit['audit_id']}")
    assert words in html
    assert ("data-refresh-seconds" in html) is (state in {"pending", "running"})


def test_example_shows_who_cites_it(client, stored_story):
    """From a citation to the example, and from there to every output."""
    html = page(client, f"/audits/{stored_story.audit_ids[0]}")
    target = found(r'href="(/examples/\d+)"', html)
    assert f"/audits/{stored_story.audit_ids[0]}#citation-" in page(client, target)


def test_examples_are_found_by_their_id(client, stored_story):
    """One hit leads straight to its page; none says so."""
    answer = client.get("/examples", params={"example_id": "policies-0000"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"][:10]) == (303, "/examples/")
    assert "No training example has this id" in page(client, "/examples?example_id=nothing%00")
    assert "Which training example?" in page(client, "/examples")


@pytest.mark.parametrize("sort", ["lift", "citations", "examples", "source"])
def test_sources(client, stored_story, sort):
    """Bad sources stand out for their size."""
    html = page(client, f"/sources?sort={sort}")
    first = found(r'class="source src-\d+" href="/source\?source=([^"]+)"', html)
    assert first == {"lift": "vendor_batch_07", "source": "crm_export"}.get(sort, first)


def test_bundles_and_queue(client, stored_story):
    """The card of the bundle; states, checks and advice."""
    listed = page(client, "/bundles")
    assert "seconds per query" in listed
    assert "candidates hold" in page(client, found(r'href="(/bundles/[^"]+)"', listed))
    html = page(client, "/queue")
    assert "up to date" in html
    assert "oldest pending" in html


def test_bundle_of_a_model_that_has_not_learned_its_corpus(client, database):
    """Its page and its place in the list say so, with the reason; the others say nothing of it."""
    register(database, "bundle-a", card={"learning": {"learned": "NO: no better than <chance>"}})
    register(database, "bundle-b", card={"learning": {"learned": "yes"}})
    for path in ("/bundles/bundle-a", "/bundles"):
        html = page(client, path)
        assert "no audit of this bundle is supported" in html
        assert "has not learned this corpus: no better than &lt;chance&gt;." in html
    assert "no audit of this bundle is supported" not in page(client, "/bundles/bundle-b")


def test_empty_states_say_what_to_do_next(client, database):
    """Without a bundle, without audits, without hits."""
    assert "wherefrom build" in page(client, "/")
    assert "wherefrom build" in page(client, "/bundles")
    assert "No source yet" in page(client, "/sources")
    story.add_bundle(database, story.corpus(20))
    assert "curl http://127.0.0.1:8077/v1/flagged" in page(client, "/")
    assert "Clear the filters" in page(client, "/?state=dead")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/nothing", 404),
        ("/audits/999", 404),
        ("/audits/x", 422),
        ("/?state=finished", 422),
        ("/?cursor=zz", 422),
    ],
)
def test_error_pages(quick_client, path, status):
    """A page in the same clothes, with a way back."""
    html = page(quick_client, path, status)
    assert re.search(r'<a class="button[^"]*" href="/">', html)
    assert "Traceback" not in html


def test_nothing_that_strangers_wrote_becomes_html(client, database):
    """Outputs, labels, reasons, models, keys, sources, example ids, texts and fields."""
    bad = story.example(0, ATTACK, ATTACK, ATTACK).model_copy(
        update={"example_id": ATTACK, "fields": {ATTACK: [ATTACK], "b": ATTACK}}
    )
    bundle_id = story.add_bundle(database, [bad], name=ATTACK[:60], model=ATTACK)
    record = FlaggedRecord(
        idempotency_key=ATTACK,
        messages=(Message(role=Role.SYSTEM, content=ATTACK),),
        completion=ATTACK,
        model=ATTACK,
        reason=ATTACK,
        labels={ATTACK: ATTACK},
        preferred=ATTACK,
    )
    (stored,) = intake.accept(database, [record], producer="local", channel="http")
    claim = AuditQueue(database).claim(bundle_id, limit=1, owner="w", lease_s=60)
    assert claim
    answer = story.attribution(record, [bad], opponents=0)
    AuditQueue(database).finish([Finished(claim.audits[0], answer, 1)])
    example = client.get(f"/v1/audits/{stored.audit_id}").json()["citations"][0]["training_example_id"]
    paths = ["/", f"/audits/{stored.audit_id}", f"/examples/{example}", "/sources", "/bundles", "/queue"]
    queries = [f"/?text={ATTACK}&source={ATTACK}&model={ATTACK}&cursor=", f"/examples?example_id={ATTACK}x"]
    for path in (*paths, *queries):
        html = page(client, path)
        assert "alert(1)" in html or path == "/queue"
        tags = Tags(html)
        assert tags.names <= KNOWN_TAGS, path
        assert not {name for name in tags.attributes if name.startswith("on") or name == "style"}, path
        assert "{{7*7}}" in html or path == "/queue"
    assert "<script>" not in page(client, f"/{ATTACK}", 404)


def test_hidden_characters_are_shown(client, stored_story):
    """An override that would turn the page around is named instead."""
    value = {"model": story.MODEL, "prompt": "p\u202e", "completion": "c\u200bd\u2066"}
    number = client.post("/v1/flagged", json=value).json()["results"][0]["audit_id"]
    html = page(client, f"/audits/{number}")
    assert not set(html) & {"\u202e", "\u200b", "\u2066"}
    assert html.count('class="hidden-char"') == 3


def test_no_inline_script_or_style(client, stored_story):
    """The content policy would refuse them; bars are SVG attributes."""
    for path in ("/", f"/audits/{stored_story.audit_ids[0]}", "/sources", "/bundles", "/queue", "/nothing"):
        html = client.get(path).text
        assert "style=" not in html
        assert "<style" not in html
        assert not re.search(r"<script(?! src=)", html)


def test_a_page_shows_a_bounded_part_of_long_texts(client, database):
    """A completion of 4 MB, cited by training examples of 1 MB with marks: a page of bounded size that says what it leaves out, and the whole behind a link."""
    bundle_id = db_builders.register(database)
    long = "word soup " * 400_000
    turns = [{"role": "user", "content": "a question " * 500} for _ in range(40)]
    db_builders.accept(database, db_builders.record(1, prompt=None, messages=turns, completion=long))
    overlap = Overlap(output=Span(start=2_000_000, end=2_000_004), example=Span(start=0, end=4), tokens=1)
    drafts = [
        db_builders.draft(rank, db_builders.example(rank + 100, completion="soup " * 200_000)).model_copy(
            update={"overlaps": (overlap,)}
        )
        for rank in range(1, 11)
    ]
    claimed = db_builders.claim_one(database, bundle_id)
    answer = db_builders.attribution(*drafts)
    AuditQueue(database).finish([Finished(claimed, answer, 0.5)])
    page = client.get(f"/audits/{claimed.audit_id}")
    assert page.status_code == 200
    assert len(page.content) < 400_000
    assert "characters not shown" in page.text
    assert "earlier turns not shown" in page.text
    whole = client.get(f"/audits/{claimed.audit_id}/text")
    assert whole.headers["content-type"].startswith("text/plain")
    assert long in whole.text
    example_id = reader.get_audit(database, claimed.audit_id).citations[-1].training_example_id
    assert len(client.get(f"/examples/{example_id}").content) < 60_000
    assert "soup " * 200_000 in client.get(f"/examples/{example_id}/text").text


def test_a_text_of_hidden_characters_does_not_grow_without_bound(client, database):
    """The first ones are named, the others have a sign."""
    db_builders.register(database)
    (taken,) = db_builders.accept(database, db_builders.record(1, completion="\u202e\u200b" * 50_000))
    page = client.get(f"/audits/{taken.audit_id}")
    assert 0 < page.text.count("U+202E") <= 260
    assert len(page.content) < 120_000
