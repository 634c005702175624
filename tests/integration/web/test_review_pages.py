"""The desk's pages without script: making a queue, putting audits in, working one off, verdicts, blind mode, who may what."""

import re

import pytest
from starlette.testclient import TestClient

from db.access import keys, people
from db.models import ReviewRow
from db.reading import neighbours
from db.reviewing import review_queues, review_work, reviews
from tests.integration.db.builders import recorded_statements
from tests.integration.web.conftest import BASE_URL
from tests.integration.web.forms import send, sign_in
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics
from wherefrom.records import AuditFilter, ItemState, QueueDraft

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'>{{7*7}}\u202e"


def first_group(pattern: str, text: str) -> str:
    """What the group of a pattern matched, which must be there."""
    found = re.search(pattern, text)
    assert found is not None, pattern
    return found[1]


@pytest.fixture
def opened(sqlite_story):
    """The database of the story."""
    return sqlite_story[1]


@pytest.fixture
def ann(quick_client):
    """Somebody who chose a name."""
    sign_in(quick_client, name="ann")
    return quick_client


def made(client, **fields):
    """The page of a queue that was made by the form."""
    given = {"name": "refunds", "by_rule": "1", "dedupe": "1", "order": "oldest", "reviewers": "1"} | fields
    answer = send(client, "/review/new", "/review/new", given)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def next_item(client, queue):
    """The address of the next item of a queue."""
    return send(client, queue, f"{queue}/next").headers["location"]


def test_a_queue_is_made_from_the_list(ann, opened):
    """The list leads to the form, which shows the rule and how many match; what matches is in the queue at once."""
    assert 'href="/review/new?flag_reason=refund_promise"' in ann.get("/?flag_reason=refund_promise").text
    form = ann.get("/review/new?flag_reason=refund_promise").text
    assert 'name="flag_reason" value="refund_promise"' in form
    queue = made(ann, flag_reason="refund_promise")
    [found] = review_queues.list_queues(opened)
    assert found.rule == AuditFilter(flag_reason="refund_promise")
    assert (found.open, found.created_by) == (2, "ann")
    assert "refund_promise" in ann.get(queue).text
    assert "refunds" in ann.get("/review").text


@pytest.mark.parametrize(
    "fields", [{"name": ""}, {"order": "x"}, {"reviewers": "9"}, {"severity": "x"}, {"name": "local"}]
)
def test_a_queue_that_cannot_be_made_is_told(ann, fields):
    """In a sentence, and nothing is stored."""
    given = {"name": "q", "by_rule": "1"} | fields
    answer = send(ann, "/review/new", "/review/new", given)
    assert (answer.status_code, "This request is invalid" in answer.text) == (422, True)
    assert "No review queue yet" in ann.get("/review").text


def test_bulk_goes_over_the_whole_filter(ann, opened):
    """The number is told before, and what entered and was assigned after."""
    queue = made(ann, by_rule="")
    number = queue.rsplit("/", 1)[1]
    page = ann.get("/review/put?state=done").text
    ended = int(first_group(r"Put (\d+) audits into a queue", page))
    me = people.list_people(opened)[0].person_id
    answer = send(
        ann, "/review/put", "/review/put", {"queue": number, "state": "done", "person": str(me)}, follow=True
    )
    assert first_group(r"\d+ of (\d+) audits entered", answer.text) == str(ended)
    assert (
        review_queues.get_queue(opened, int(number), person_id=me).mine
        == review_queues.get_queue(opened, int(number)).open
        > 0
    )


def test_working_a_queue_off(ann, opened):
    """Next, verdict, next, until nothing is left; taking one back opens it again."""
    queue = made(ann, flag_reason="refund_promise")
    first = next_item(ann, queue)
    audit = first_group(r'action="(/audits/\d+/reviews)"', ann.get(first).text)
    answer = send(ann, first, audit, {"verdict": "confirmed", "back": first, "item": first.rsplit("/", 1)[1]})
    assert answer.headers["location"] == first
    page = ann.get(first).text
    assert "ann: confirmed cause" in page
    assert 'aria-pressed="true"' in page
    second = next_item(ann, queue)
    assert second != first
    undo = first_group(r'action="(/reviews/\d+/undo)"', page)
    send(ann, first, undo, {"back": first})
    assert next_item(ann, queue) == first
    assert "took back" in ann.get(first).text


def test_a_queue_says_when_nothing_is_left(ann):
    """Instead of an empty page."""
    queue = made(ann, flag_reason="nothing like it")
    assert "Nothing has entered yet" in ann.get(queue).text
    assert "Nothing is left for you" in send(ann, queue, f"{queue}/next", follow=True).text


def test_taking_out_and_putting_back(ann, opened):
    """From the queue's page; what is out stays out."""
    queue = made(ann)
    number = int(queue.rsplit("/", 1)[1])
    item = review_work.list_items(opened, number)[0]
    send(ann, queue, f"{queue}/items/{item.item_id}/remove")
    send(ann, queue, f"{queue}/fill")
    assert [one.item_id for one in review_work.list_items(opened, number, state=ItemState.REMOVED)] == [
        item.item_id
    ]
    assert "Put back" in ann.get(f"{queue}?state=removed").text
    send(ann, queue, f"{queue}/items/{item.item_id}/restore")
    assert review_work.get_item(opened, number, item.item_id).state is ItemState.OPEN
    assert send(ann, queue, f"{queue}/items/{item.item_id}/burn").status_code == 422


def test_assigning_from_the_page(ann, opened):
    """Ticked ones, and the next so many; progress says how far each person is."""
    queue = made(ann)
    number = int(queue.rsplit("/", 1)[1])
    ben = people.choose_local(opened, "ben").person_id
    ticked = review_work.list_items(opened, number)[0].item_id
    assert (
        "assigned=1"
        in send(ann, queue, f"{queue}/assign", {"person": ben, "item": ticked}).headers["location"]
    )
    assert "assigned=2" in send(ann, queue, f"{queue}/assign", {"person": ben, "most": 2}).headers["location"]
    assert "0 of 3" in ann.get(queue).text
    assert send(ann, queue, f"{queue}/assign", {"person": 99, "most": 2}).status_code == 404


def test_verdicts_and_comments_on_an_audit(ann, opened):
    """On the audit, on a citation, and on some words of the answer; the history tells them all."""
    for fields in (
        {"verdict": "plausible"},
        {"verdict": "unrelated", "rank": "1"},
        {"comment": "why?", "quote": "Of course!"},
    ):
        answer = send(ann, "/audits/1", "/audits/1/reviews", fields)
        assert answer.status_code == 303, answer.text
    page = ann.get("/audits/1").text
    assert '<blockquote dir="auto">Of course!</blockquote>' in page
    citation = page[page.index('id="citation-1"') : page.index('id="citation-2"')]
    assert "ann: unrelated" in citation
    for fields in (
        {},
        {"verdict": "x"},
        {"verdict": "plausible", "rank": "77"},
        {"comment": "x", "quote": "nowhere"},
    ):
        assert send(ann, "/audits/1", "/audits/1/reviews", fields).status_code in {404, 422}
    assert len(reviews.reviews_of(opened, 1)) == 3


def test_whoever_chose_no_name_judges_nothing(quick_client, opened):
    """They are told to choose one."""
    answer = send(quick_client, "/audits/1", "/audits/1/reviews", {"verdict": "plausible"})
    assert (answer.status_code, "choose a name first" in answer.text) == (403, True)
    assert reviews.reviews_of(opened, 1) == ()


def test_hostile_words_stay_words(ann):
    """In names, comments and rules."""
    made(ann, name="q <script>alert(1)</script>", flag_reason="<img src=x onerror=alert(1)>")
    send(ann, "/audits/1", "/audits/1/reviews", {"comment": ATTACK})
    for path in ("/review", "/review/1", "/audits/1", "/review/new?text=<script>"):
        page = ann.get(path).text
        assert not re.search(r"<script(?! src=\"/static)|<img|\u202e", page), path


def test_a_blind_item_tells_nothing_that_was_computed(ann, opened):
    """No score, rank, source, tier or link to the audit; citations and random examples in one list; four keys each."""
    queue = made(ann, blind="1", flag_reason="refund_promise")
    item = next_item(ann, queue)
    page = ann.get(item).text
    rows = re.findall(r'action="(/review/\d+/items/\d+/blind/\d+)"', page)
    assert len(rows) == 6
    main = page[page.index("<main") : page.index("</main")]
    assert not re.search(
        r"vendor_batch|policies-|citation-\d|score|tier|/audits/|/examples/|refund_promise|confidence</", main
    )
    for action in rows:
        assert send(ann, item, action, {"verdict": "unrelated"}).headers["location"] == f"{item}#at-hand"
    assert "all judged" in ann.get(item).text
    assert next_item(ann, queue) != item
    with opened.reading() as session:
        number = int(item.rsplit("/", 1)[1])
        stored = {
            row.training_example_id: row.rank for row in session.query(ReviewRow).filter_by(item_id=number)
        }
    assert sorted(rank is None for rank in stored.values()) == [False] * 4 + [True] * 2
    assert 1 in stored.values()
    audit_id = review_work.get_item(opened, 1, number).audit.audit_id
    found = reviews.reviews_of(opened, audit_id)
    assert {one.training_example_id: one.rank for one in found} == stored
    assert all(one.blind and one.stands for one in found)


def test_who_saw_the_scores_is_not_blind(ann, opened):
    """Whoever judged the audit with its scores in view is refused; a row that is not shown is none."""
    queue = made(ann, blind="1", flag_reason="refund_promise")
    item = next_item(ann, queue)
    action = first_group(r'action="(/review/\d+/items/\d+/blind/)\d+"', ann.get(item).text)
    assert send(ann, item, f"{action}9999", {"verdict": "unrelated"}).status_code == 404
    audit_id = review_work.get_item(opened, 1, int(item.rsplit("/", 1)[1])).audit.audit_id
    send(ann, item, f"/audits/{audit_id}/reviews", {"verdict": "plausible"})
    row = first_group(r'action="(/review/\d+/items/\d+/blind/\d+)"', ann.get(item).text)
    answer = send(ann, item, row, {"verdict": "unrelated"})
    assert (answer.status_code, "not blind" in answer.text) == (422, True)


@pytest.fixture
def reviewer(sqlite_story, opened):
    """Somebody with the role reviewer, before a service that asks for keys; the queue of which they are a member, and another."""
    settings = sqlite_story[0].model_copy(update={"production": True})
    app = create_app(settings, opened, metrics=Metrics(), queue=SilentProbe())
    client = TestClient(app, base_url=BASE_URL)
    sign_in(client, key=keys.create_key(opened, "ben", ["review"]))
    for name, reason in (("mine", "refund_promise"), ("theirs", "personal_data")):
        draft = QueueDraft(name=name, rule=AuditFilter(flag_reason=reason))
        review_queues.fill(opened, review_queues.create_queue(opened, draft, created_by=None))
    review_queues.add_member(opened, 1, people.list_people(opened)[0].person_id, by=None)
    return client


def test_a_reviewer_is_shown_no_other_audits(reviewer, monkeypatch):
    """The page of an item does not even look for audits with the same first citation, which may be of other queues."""
    item = next_item(reviewer, "/review/1")
    monkeypatch.setattr(neighbours, "same_first_citation", None)
    page = reviewer.get(item)
    assert page.status_code == 200
    assert 'rel="next" data-next' not in page.text


def test_a_reviewer_works_in_their_queues_and_sees_nothing_else(reviewer, opened):
    """By page and by the API; they judge what they may see, and manage nothing."""
    page = reviewer.get("/review").text
    assert ("mine" in page, "theirs" in page, 'href="/sources"' in page) == (True, False, False)
    item = next_item(reviewer, "/review/1")
    audit_id = review_work.get_item(opened, 1, int(item.rsplit("/", 1)[1])).audit.audit_id
    assert reviewer.get(item).status_code == 200
    assert send(reviewer, item, f"/audits/{audit_id}/reviews", {"verdict": "confirmed"}).status_code == 303
    theirs = review_work.list_items(opened, 2)[0]
    for path, status in (
        ("/", 403), (f"/audits/{audit_id}", 403), ("/v1/audits", 403), ("/review/2", 404), ("/review/new", 403),
        (f"/review/2/items/{theirs.item_id}", 404), ("/sources", 403), ("/examples/1", 403), ("/review/agreement", 403),
    ):  # fmt: skip
        assert reviewer.get(path).status_code == status, path
    other = f"/audits/{theirs.audit.audit_id}/reviews"
    assert send(reviewer, item, other, {"verdict": "confirmed"}).status_code == 404
    for action in ("/review/1/close", "/review/1/fill", f"/review/1/items/{theirs.item_id}/remove"):
        assert send(reviewer, item, action).status_code in {403, 404}
    assert send(reviewer, item, "/review/2/next").status_code == 404


def test_pages_cost_the_same_however_much_they_hold(ann, opened):
    """Statements of each page of the desk, the look at the session among them."""
    queue = made(ann)
    item = next_item(ann, queue)
    counted = {}
    for path in ("/review", queue, item, "/review/new", "/review/put"):
        with recorded_statements() as statements:
            assert ann.get(path).status_code == 200
        counted[path] = len(statements)
    assert counted == {"/review": 2, queue: 6, item: 16, "/review/new": 2, "/review/put": 4}


def test_blind_verdicts_are_compared_and_people_with_each_other(ann, opened):
    """Two people, one of whom confirms what the other finds unrelated; examples at random stand beside the ranks."""
    queue = made(ann, blind="1", reviewers="2", flag_reason="refund_promise")
    assert "No blind verdict yet" in ann.get("/review/agreement").text
    ben = TestClient(ann.app, base_url=BASE_URL)
    sign_in(ben, name="ben")
    for client, verdict in ((ann, "confirmed"), (ben, "unrelated")):
        item = next_item(client, queue)
        rows = re.findall(r'action="(/review/\d+/items/\d+/blind/\d+)"', client.get(item).text)
        for number, action in enumerate(rows):
            send(client, item, action, {"verdict": verdict if number else "confirmed"})
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", ann.get("/review/agreement").text))
    assert "2 people have judged blind" in page
    assert "ann and ben 6 17" in page
    assert re.search(r"drawn at random 4 ", page)
    assert review_queues.get_queue(opened, 1).done == 1
