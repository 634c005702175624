"""What stands behind a citation on its page: spans side by side, measured effects, reasons for what is missing, the card."""

import re
from html.parser import HTMLParser

import pytest

from db.bundles import catalogue
from db.measuring import measurements
from db.queues.measurement_queue import MeasurementQueue
from db.queues.queue import Failure
from db.reading import reader
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send
from tests.integration.web.sequel import ATTACK, EFFECT, OUTPUT, answer_one, with_evidence
from web.guard.headers import CONTENT_SECURITY_POLICY
from wherefrom.errors import NO_SUPPORT
from wherefrom.records import (
    AuditState,
    MeasurementState,
    Method,
    ModulePart,
)


class Marks(HTMLParser):
    """The text of each mark by its classes."""

    def __init__(self):
        super().__init__()
        self.found, self._open, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in {"mark", "span", "sup"}:
            self._open.append((tag, dict(attrs).get("class") or "", ""))

    def handle_data(self, data):
        if self._open and self._open[-1][0] != "sup":
            tag, name, text = self._open[-1]
            self._open[-1] = (tag, name, text + data)

    def handle_endtag(self, tag):
        if tag in {"mark", "span", "sup"} and self._open:
            _, name, text = self._open.pop()
            self.found.append((name, text))


def test_stretches_of_output_and_example_stand_side_by_side(stored_story, database, client):
    """Numbered pairs with their shares, the common run underlined beside them, everything escaped."""
    number = answer_one(stored_story, database, with_evidence)
    page = client.get(f"/audits/{number}").text
    marks = Marks()
    marks.feed(page[page.index('id="citation-1"') : page.index('id="citation-2"')])
    texts = {name: [text for other, text in marks.found if other == name] for name, _ in marks.found}
    example = reader.get_audit(database, number).citations[0].completion
    assert texts["ev ev-1 verbatim"] == ["refund", example[3:9]]
    assert texts["ev ev-1"] == [" every prod", example[0:3], example[9:12]]
    assert texts["ev ev-2"][0] == OUTPUT[24:54] + OUTPUT[54:60]
    assert "62% of the positive influence" in page
    assert "up to 2 tokens" in page
    assert "<img src=x" not in page
    assert not [
        attrs for _, attrs in marks.tags if any(name.startswith("on") or name == "style" for name in attrs)
    ]


def test_every_number_that_is_there_is_shown(stored_story, database, client):
    """Effect with its basis, confidence, full tier, near-duplicates, both p-values."""
    number = answer_one(stored_story, database, with_evidence)
    page = client.get(f"/audits/{number}").text
    for expected in (
        "+0.0042",
        "bank of 64",
        "83%",
        "Full tier",
        ">Encoder",
        "+0.57",
        "+4",
        "0.004",
        "out of distribution",
    ):
        assert expected in page, expected
    assert "No predicted effect" not in page
    assert "No confidence" not in page
    assert "No conformal p" not in page


def test_what_is_missing_says_why(stored_story, client):
    """The story's bundle holds neither bank nor calibration, and its engine stored no spans."""
    page = client.get(f"/audits/{stored_story.audit_ids[0]}").text
    assert "No predicted effect: this bundle has no bank of retrained models" in page
    assert "No confidence: this bundle was not calibrated" in page
    assert "No conformal p: this bundle has no scores of control outputs" in page
    assert "No marked text" in page
    assert "WHEREFROM_RECIPE" in page
    assert "marked words" in page


def with_parts(answer):
    """The first citation with its parts of the model, one of them named by an attacker."""
    parts = (
        ModulePart(by="block", name="0", influence=0.3, usual_share=0.5),
        ModulePart(by="block", name=ATTACK, influence=-0.1, usual_share=0.5),
        ModulePart(by="linear", name="o_proj", influence=0.2, usual_share=1.0),
    )
    first = answer.citations[0].model_copy(update={"modules": parts, "influence_score": 0.2})
    return answer.model_copy(update={"citations": (first, *answer.citations[1:])})


def test_parts_of_the_model_are_a_strip_with_a_text(stored_story, database, client):
    """One bar per part, a tick for an average citation, every number in the label; in the API with the same words; no strip where nothing is stored."""
    number = answer_one(stored_story, database, with_parts)
    page = client.get(f"/audits/{number}").text
    first = page[page.index('id="citation-1"') : page.index('id="citation-2"')]
    marks = Marks()
    marks.feed(first)
    strips = [attrs for tag, attrs in marks.tags if tag == "svg" and attrs.get("role") == "img"]
    assert [one["aria-label"].partition(":")[0] for one in strips] == ["Blocks", "Linear layers"]
    assert "block 0: 100 % (+0.3000), usually 50 %" in strips[0]["aria-label"]
    assert f"block {ATTACK}" in strips[0]["aria-label"]
    assert "<img src=x" not in page
    bars = [attrs["class"] for tag, attrs in marks.tags if tag == "rect" and "part-bar" in attrs["class"]]
    assert bars == ["part-bar", "part-bar against", "part-bar"]
    assert sum(attrs.get("class") == "part-usual" for _, attrs in marks.tags) == 3
    words = client.get(f"/v1/audits/{number}").json()["citations"][0]["carried_by"]
    assert words == "mostly block 0 (100 %, usually 50 %), o (100 %, usually 100 %)"
    assert words in first
    assert "part-strip" not in page[page.index('id="citation-2"') :]


def test_an_abstained_audit_says_plainly_that_nothing_is_supported(stored_story, database, client):
    """Its citations are there, as the best that was found and not as the cause."""
    number = answer_one(
        stored_story,
        database,
        lambda answer: answer,
        state=AuditState.ABSTAINED,
        code=NO_SUPPORT,
        reason="p = 0.8 of 500 controls",
    )
    page = client.get(f"/audits/{number}").text
    assert "Not supported: the engine abstains" in page
    assert "p = 0.8 of 500 controls" in page
    assert "Best found, not supported" in page
    assert page.count('class="citation"') == 10
    assert client.get(f"/v1/audits/{number}").json()["audit"]["code"] == "no_support"


def ask(client, number, rank=1, **options):
    """A question for an effect over the API."""
    return client.post(f"/v1/audits/{number}/citations/{rank}/measure", **options)


@pytest.fixture
def measuring(make_app):
    """A client of a service that knows a recipe."""
    from starlette.testclient import TestClient

    return TestClient(make_app(recipe="recipe.json"), base_url=BASE_URL, follow_redirects=False)


def test_without_a_recipe_measuring_says_what_to_set(stored_story, client):
    """The API answers with the code, the page shows no button."""
    answer = ask(client, stored_story.audit_ids[0])
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "measuring_unavailable"
    assert "WHEREFROM_RECIPE" in answer.json()["error"]["message"]
    assert "Measure effect" not in client.get(f"/audits/{stored_story.audit_ids[0]}").text


def test_asking_over_the_api(stored_story, measuring):
    """202 with the measurement; the same question gets the same answer; what is not there is 404."""
    number = stored_story.audit_ids[0]
    first = ask(measuring, number)
    assert first.status_code == 202
    body = first.json()
    assert (body["state"], body["method"], body["weak"], body["requested_by"]) == (
        "pending",
        "refit",
        False,
        "local",
    )
    assert ask(measuring, number).json() == body
    assert ask(measuring, number, params={"method": "one-step"}).json()["weak"]
    assert measuring.get(f"/v1/measurements/{body['measurement_id']}").json() == body
    assert len(measuring.get(f"/v1/audits/{number}").json()["measurements"]) == 2
    assert ask(measuring, number, rank=99).status_code == 404
    assert ask(measuring, number, rank=0).status_code == 404
    assert ask(measuring, number, params={"method": "guess"}).status_code == 422
    assert measuring.get("/v1/measurements/999").status_code == 404


def test_the_page_asks_follows_and_shows_the_effect(stored_story, measuring, database):
    """Button, state that refreshes itself, then the effect with interval, controls and cost; no second button."""
    number = stored_story.audit_ids[0]
    before = measuring.get(f"/audits/{number}").text
    assert before.count("Measure effect") == 12
    assert "data-refresh-seconds" not in before
    action = f"/audits/{number}/citations/1/measure"
    assert measuring.post(action).status_code == 403  # without the token of the page's form
    answer = send(measuring, f"/audits/{number}", action)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/audits/{number}#citation-1")
    waiting = measuring.get(f"/audits/{number}").text
    assert "waits to be measured" in waiting
    assert 'data-refresh-seconds="2"' in waiting
    assert waiting.count("Measure effect") == 11
    claimed = MeasurementQueue(database).claim(stored_story.bundle_id, owner="m", lease_s=60, max_attempts=5)
    assert claimed is not None
    MeasurementQueue(database).finish(claimed, EFFECT)
    page = measuring.get(f"/audits/{number}").text
    part = page[page.index('id="citation-1"') : page.index('id="citation-2"')]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", part))
    for expected in (
        "measured", "Measured effect +0.0123 nats", "95 % +0.0100 to +0.0146", "with 1 that says nearly the same", "3 seeds",
        "+5.2 standard errors from the controls", "\u22120.0004, +0.0010", "Cost 1 min 15 s",
    ):  # fmt: skip
        assert expected in text, (expected, text)
    assert "effect-scale" in part
    assert "data-refresh-seconds" not in page


def test_a_dead_measurement_tells_and_can_be_asked_again(stored_story, measuring, database):
    """Code and reason stand beside the citation, and the button is back."""
    number = stored_story.audit_ids[0]
    ask(measuring, number)
    claimed = MeasurementQueue(database).claim(stored_story.bundle_id, owner="m", lease_s=60, max_attempts=5)
    assert claimed is not None
    MeasurementQueue(database).fail(
        claimed.lease, Failure("configuration", "<b>layers</b>", retry_in_s=None), max_attempts=5
    )
    page = measuring.get(f"/audits/{number}").text
    assert "not measured" in page
    assert "&lt;b&gt;layers" in page
    assert page.count("Measure effect") == 12
    ask(measuring, number)
    assert measurements.measurement_counts(database)[MeasurementState.PENDING] == 1


def test_other_sites_cannot_ask(stored_story, measuring):
    """A page elsewhere cannot make a browser start a training."""
    answer = measuring.post(
        f"/audits/{stored_story.audit_ids[0]}/citations/1/measure", headers={"Origin": "http://evil.example"}
    )
    assert answer.status_code == 403


def test_measuring_needs_its_scope(stored_story, make_app, database):
    """A key that may only read reads; one that may measure measures."""
    from starlette.testclient import TestClient

    from db.access import keys

    client = TestClient(make_app(recipe="r.json", host="0.0.0.0"), base_url=BASE_URL)
    number = stored_story.audit_ids[0]
    for scope, expected in (("read", 403), ("ingest", 403), ("measure", 202), ("admin", 202)):
        key = keys.create_key(database, scope, [scope])
        assert ask(client, number, headers={"Authorization": f"Bearer {key}"}).status_code == expected
    assert ask(client, number).status_code == 401


SVG = '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


@pytest.fixture
def card(stored_story, database):
    """The bundle's card with tables, a plot and an attack."""
    from sqlalchemy import update

    from db.models import Bundle

    content = {
        "lds": {
            "forward": {"mean": 0.626, "low": 0.61, "high": 0.64},
            "fused": {"mean": 0.655, "low": 0.64, "high": 0.67},
        },
        ATTACK: ATTACK,
        "calibration": {"calibrated": "yes"},
        "plots": [{"title": f"LDS {ATTACK}", "svg": SVG}],
    }
    with database.writing() as session:
        session.execute(update(Bundle).values(card=content))
    return catalogue.bundle_by_id(database, stored_story.bundle_id)


def test_the_card_of_a_bundle(card, client):
    """Its tables and plots; SVG only inside of an <img>, which the content policy of this page alone allows."""
    answer = client.get(f"/bundles/{card.name}")
    assert answer.status_code == 200
    marks = Marks()
    marks.feed(answer.text)
    images = [attrs for tag, attrs in marks.tags if tag == "img"]
    assert [one["src"].split(",")[0] for one in images] == ["data:image/svg+xml;base64"]
    assert "alert(1)</script>" not in answer.text
    assert "<td>0.626</td>" in answer.text
    assert ATTACK not in answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert policy == CONTENT_SECURITY_POLICY.replace("img-src 'self'", "img-src 'self' data:")
    assert client.get("/bundles").headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert f'href="/bundles/{card.name}"' in client.get("/bundles").text
    assert ">calibrated</span>" in answer.text
    assert ">calibrated</span>" in client.get("/bundles").text
    assert client.get("/bundles/none").status_code == 404
    assert client.get("/bundles/%00").status_code == 404


def test_method_names_are_stable():
    """They stand in the database and in scripts."""
    assert [one.value for one in Method] == ["refit", "one-step", "unlearn"]


def test_what_is_no_more_than_noise_is_marked(stored_story, database, client):
    """A weak audit says so above its citations and in the list; a citation whose sign could be noise says that instead of a side."""

    def noisy(answer):
        first, second = (
            answer.citations[place].model_copy(update={"influence_score": score, "sign_determined": sure})
            for place, score, sure in ((0, -0.03, False), (1, -0.2, True))
        )
        update = {"citations": (first, second), "weak": True, "noise_level": 0.041, "noise_best": 0.125}
        return answer.model_copy(update=update)

    number = answer_one(stored_story, database, noisy)
    page = client.get(f"/audits/{number}").text
    first, second = (
        page.split('id="citation-2"')[0].split('id="citation-1"')[1],
        page.split('id="citation-2"')[1],
    )
    assert "sign not determined" in first
    assert "influence speaks against it" not in first
    assert "sign not determined" not in second
    assert "influence speaks against it" in second
    assert "Weak: no influence score is above" in page
    assert "(0.125)" in page
    assert "0.041" in page
    listed = client.get("/").text
    assert ">weak</span>" in listed
    other = next(
        item["audit_id"] for item in client.get("/v1/audits").json()["items"] if item["weak"] is not True
    )
    plain = client.get(f"/audits/{other}").text
    assert "Weak:" not in plain
    assert "sign not determined" not in plain


def test_the_audit_says_what_was_found_and_how(stored_story, database, client):
    """The plain sentence, how it was computed, words of the output that lead to citations, and an address for print."""
    number = answer_one(stored_story, database, with_evidence)
    page = client.get(f"/audits/{number}").text
    conclusion = client.get(f"/v1/audits/{number}").json()["conclusion"]
    assert conclusion["text"] in page
    assert conclusion["strength"] == "weak", "novelty p is .02"
    assert "unlike those on which the bundle was calibrated" in page
    assert 'data-ranks="1"' in page
    assert 'href="#citation-1"' in page
    assert f"Audit #{number} · {BASE_URL}/audits/{number} · printed 20" in page
    assert "quality not measured" in page
    assert (
        f'href="/examples/{reader.get_audit(database, number).citations[0].training_example_id}#alike"'
        in page
    )


def test_next_and_previous_follow_the_list(stored_story, client):
    """The filters of the list stand in the links, the order and the filters in words; filters that no list takes do no harm."""
    listed = client.get("/?flag_reason=refund_promise").text
    first, second = re.findall(r'href="(/audits/\d+\?flag_reason=refund_promise)"', listed)[:2]
    page = client.get(first).text
    assert f'href="{second}" rel="next" data-next' in page
    assert "Newest first: Reason refund_promise" in page
    assert "data-prev" not in page
    assert "data-prev>Previous" in client.get(second).text
    assert "All audits, newest first" in client.get("/audits/2?state=nonsense").text


def test_others_with_the_same_first_citation(stored_story, database, client):
    """Two equal answers lead to each other."""
    one, other = (answer_one(stored_story, database, with_evidence) for _ in range(2))
    page = client.get(f"/audits/{other}").text
    beside = page[
        page.index("Others with the same first citation") : page.index("What a citation does not prove")
    ]
    assert f'href="/audits/{one}"' in beside
    assert f'href="/audits/{other}"' not in beside
