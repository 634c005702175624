"""An auditor's day in a real browser, once by mouse and once by keyboard alone, in one service.

A flag arrives, a queue takes it by its rule, the auditor finds it, reads its citations, has an effect measured and judges; rows go on a
fix list, a what-if is asked, and the rows leave as a file; the output is audited under the bundle of the next model, and both are compared;
a colleague disagrees.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from db.queues.audit_queue import AuditQueue, Finished
from db.queues.measurement_queue import MeasurementQueue
from db.queues.what_if_queue import WhatIfQueue
from tests.integration.web import story
from tests.integration.web.conftest import Desk, note_complaints
from tests.integration.web.sequel import AFTER, EFFECT, OUTPUT, answer_all, next_model, with_evidence
from wherefrom.records import ListScore

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

#: Most presses of Tab from where somebody is to what they want.
MOST_TABS = 45


class Mouse:
    """Points and clicks."""

    name = "mouse"

    def __init__(self, page: Page) -> None:
        self.page = page

    def press(self, target: Locator, key: str = "") -> None:
        """Press a button, follow a link, open a row."""
        del key
        target.click()

    def write(self, field: Locator, text: str, key: str = "") -> None:
        """Write into a field, instead of what is in it."""
        del key
        field.click()
        field.fill(text)

    def tick(self, box: Locator, key: str = "") -> None:
        """Tick a box."""
        del key
        box.click()

    def choose(self, field: Locator, option: str) -> None:
        """Choose what begins with these words."""
        field.select_option(option)

    def move(self, target: Locator, key: str) -> None:
        """Go to a row or a citation."""
        del key
        target.hover()

    def back(self) -> None:
        """Go back to the page before; the keys for it are the browser's own, and headless it has none."""
        self.page.go_back()


class Keys(Mouse):
    """Never touches the mouse: the keys of the desk where there is one, else Tab."""

    name = "keys"

    def press(self, target: Locator, key: str = "") -> None:
        """By its keys, one after the other, else by Tab and Enter."""
        if key:
            for one in key.split():
                self._strike(one)
            return
        self._reach(target)
        self.page.keyboard.press("Enter")

    def write(self, field: Locator, text: str, key: str = "") -> None:
        """By its key, else by Tab; then type."""
        if key:
            self._strike(key)
        self._reach(field)
        self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)

    def tick(self, box: Locator, key: str = "") -> None:
        """By its key, else by Tab and Space."""
        if key:
            self._strike(key)
            return
        self._reach(box)
        self.page.keyboard.press("Space")

    def choose(self, field: Locator, option: str) -> None:
        """By Tab and its first letters."""
        self._reach(field)
        self.page.keyboard.type(option)

    def move(self, target: Locator, key: str) -> None:
        """By its key."""
        self._strike(key)
        expect(target).to_be_focused()

    def _strike(self, key: str) -> None:
        """A key of the desk; what hears it comes at the end of a page."""
        self.page.wait_for_load_state()
        self.page.keyboard.press(key)

    def _reach(self, target: Locator) -> None:
        for _ in range(MOST_TABS):
            if target.evaluate("one => one === document.activeElement"):
                return
            self.page.keyboard.press("Tab")
        pytest.fail(f"{MOST_TABS} presses of Tab do not lead to {target}", pytrace=False)


@dataclass(frozen=True)
class Day:
    """One run of the story."""

    desk: Desk
    hands: Mouse
    #: Reason of what is flagged in this run, so that two runs do not meet.
    reason: str

    @property
    def page(self) -> Page:
        """The auditor's page."""
        return self.hands.page

    def button(self, name: str) -> Locator:
        """A button of the page."""
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        """A link of the page."""
        return self.page.get_by_role("link", name=name, exact=True)


Opened = Callable[[type[Mouse]], Day]


@pytest.fixture(autouse=True)
def _patience() -> Iterator[None]:
    """A busy machine is no failure of the desk."""
    expect.set_options(timeout=30_000)
    yield
    expect.set_options(timeout=5_000)


@pytest.fixture
def open_day(desk: Desk, browser: Browser, complaints: list[str]) -> Iterator[Opened]:
    """Opens a browser of its own for each person; what it complains of is collected."""
    contexts = []

    def opened(kind: type[Mouse]) -> Day:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        note_complaints(page, complaints)
        return Day(desk, kind(page), f"refund_by_{kind.name}")

    yield opened
    for context in contexts:
        context.close()


def choose_name(day: Day, name: str) -> None:
    """Say who one is."""
    day.page.goto(f"{day.desk.url}/sign-in")
    day.hands.write(day.page.get_by_label("Name"), f"{name}_{day.hands.name}")
    day.hands.press(day.button("Use this name"))
    expect(day.page.get_by_role("heading", level=1, name="Audits")).to_be_visible()


def make_a_queue(day: Day) -> None:
    """A filter becomes the rule of a queue that wants two people per audit."""
    day.hands.write(day.page.get_by_label("Reason", exact=True), day.reason)
    day.hands.press(day.button("Filter"))
    expect(day.page.get_by_text("No audit matches these filters")).to_be_visible()
    day.hands.press(day.link("make a queue of what will match"))
    day.hands.write(day.page.get_by_label("Name"), f"refunds {day.hands.name}")
    day.hands.write(day.page.get_by_label("People per audit"), "2")
    day.hands.press(day.button("Make the queue"))
    expect(day.page.get_by_text("Nothing has entered yet.")).to_be_visible()


def flag(day: Day) -> int:
    """A producer sends an output, and a worker answers it."""
    record = story.record(700).model_dump(mode="json", exclude={"idempotency_key"}, exclude_none=True)
    sent = record | {"severity": "critical", "completion": f"{OUTPUT} {day.hands.name}", "reason": day.reason}
    answer = httpx.post(f"{day.desk.url}/v1/flagged", json=sent).json()["results"][0]
    claim = AuditQueue(day.desk.database).claim(day.desk.story.bundle_id, limit=1, owner="w", lease_s=60)
    assert claim is not None
    assert claim.audits[0].audit_id == answer["audit_id"], "the most urgent is claimed first"
    found = with_evidence(story.attribution(claim.audits[0].record, story.corpus(20)))
    AuditQueue(day.desk.database).finish([Finished(claim.audits[0], found, 0.1)])
    return int(answer["audit_id"])


def find_it(day: Day, audit_id: int) -> None:
    """By words of the output, from wherever one is."""
    day.hands.press(day.button("Fill now"))
    expect(day.page.get_by_text("1 audit entered.")).to_be_visible()
    day.hands.press(day.link("Audits"), "g a")
    expect(day.page.get_by_role("heading", level=1, name="Audits")).to_be_visible()
    day.hands.write(day.page.get_by_role("searchbox", name="Text"), f"no receipt. {day.hands.name}", "/")
    day.page.keyboard.press("Enter")
    row = day.page.locator(f'[data-row][href^="/audits/{audit_id}?"]')
    expect(row).to_have_count(1)
    day.hands.press(row, "j Enter")
    expect(day.page.get_by_role("heading", level=1, name=day.reason)).to_be_visible()


def read_and_measure(day: Day) -> None:
    """The first two citations, the whole example of one, and its effect is asked for."""
    first, second = day.page.locator("#citation-1"), day.page.locator("#citation-2")
    day.hands.move(first, "j")
    day.hands.move(second, "j")
    day.hands.press(second.locator("[data-example]"), "e")
    expect(day.page.get_by_role("heading", name="Outputs that cite it")).to_be_visible()
    day.hands.back()
    expect(day.page.get_by_role("heading", level=1, name=day.reason)).to_be_visible()
    day.hands.move(first, "j")
    day.hands.press(first.get_by_role("button", name="Measure effect"), "m")
    expect(first.get_by_text("waits to be measured")).to_be_visible()


def judge(day: Day) -> None:
    """The citation at hand, then the audit as a whole."""
    page, who = day.page, f"ann_{day.hands.name}"
    first = page.locator("#citation-1")
    day.hands.press(first.get_by_role("button", name="Confirmed cause"), "1")
    expect(first.locator(".chip", has_text=f"{who}: confirmed cause")).to_be_visible()
    day.hands.press(page.locator(".audit-verdict").get_by_role("button", name="Plausible"), "Escape 2")
    expect(page.locator(".audit-verdict .chip")).to_have_text(f"{who}: plausible")


def tick_two(day: Day) -> None:
    """Two citations; the effect is measured meanwhile, the page follows, and the ticks stay."""
    boxes = [day.page.locator(f"#citation-{rank} .tick-citation") for rank in (1, 2)]
    for rank, box in enumerate(boxes, start=1):
        day.hands.move(day.page.locator(f"#citation-{rank}"), "j")
        day.hands.tick(box, "x")
    queue = MeasurementQueue(day.desk.database)
    claimed = queue.claim(day.desk.story.bundle_id, owner="w", lease_s=60)
    assert claimed is not None
    queue.finish(claimed, EFFECT)
    expect(day.page.locator("#citation-1").get_by_text("Measured effect")).to_be_visible()
    for box in boxes:
        expect(box).to_be_checked()


def put_on_a_list(day: Day) -> None:
    """What is ticked goes on a new list, with a reason."""
    page = day.page
    name = page.locator("#ticked [name=name]").first
    day.hands.write(name, f"promises {day.hands.name}", "f")
    day.hands.write(page.get_by_label("Reason", exact=True), "no receipt")
    day.hands.press(day.button("Put ticked rows on the list"))
    expect(page.get_by_text("2 of 2 rows changed.")).to_be_visible()
    expect(page.locator(".fix-remove", has_text="Remove")).to_have_count(2)


def ask_what_if(day: Day, audit_id: int) -> None:
    """What leaving both out would do to these outputs; the page follows the worker."""
    day.hands.write(day.page.get_by_label("Reason of the outputs"), day.reason, "w")
    day.hands.press(day.button("Ask"))
    expect(day.page.get_by_role("heading", name="What if these 2 rows had been left out?")).to_be_visible()
    queue = WhatIfQueue(day.desk.database)
    claimed = queue.claim(day.desk.story.bundle_id, owner="w", lease_s=60)
    assert claimed is not None
    queue.store(claimed, [ListScore(key=str(audit_id), score=2.5, z=4.2, chance=0.005)], {})
    expect(day.page.get_by_role("cell", name="+4.2")).to_be_visible()


def take_the_rows_away(day: Day, folder: Path) -> None:
    """The rows as a file, each training example once with its decision."""
    name = f"promises {day.hands.name}"
    day.hands.press(day.link(name))
    expect(day.page.get_by_role("heading", level=1, name=name)).to_be_visible()
    with day.page.expect_download() as told:
        day.hands.press(day.link("Rows as JSONL"), "a Enter")
    told.value.save_as(folder / "rows.jsonl")
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text("utf-8").splitlines()]
    assert len({one["example_id"] for one in rows}) == 2
    assert {one["action"] for one in rows} == {"remove"}


def meet_the_next_model(day: Day) -> None:
    """The same output under the bundle of a model that learned the cleaned corpus, and what changed."""
    page, hands = day.page, day.hands
    bundle_id = next_model(day.desk.database)
    hands.press(day.link("Audits"), "g a")
    expect(page.get_by_role("heading", level=1, name="Audits")).to_be_visible()
    hands.write(page.get_by_label("Reason", exact=True), day.reason)
    hands.press(day.button("Filter"))
    hands.press(day.link("more actions"))
    hands.choose(page.get_by_label("Bundle"), AFTER)
    hands.press(day.button("Count"))
    hands.press(day.button("Audit 1 under it"))
    expect(page.get_by_text("1 new audit is queued.")).to_be_visible()
    answer_all(day.desk.database, bundle_id)
    hands.press(day.link("Compare the two bundles"))
    hands.press(day.button("Compare"))
    expect(page.get_by_text("outputs with another first citation")).to_be_visible()
    hands.press(page.locator("[data-row]", has_text=day.reason), "j Enter")
    expect(page.get_by_role("heading", name="One output under two bundles")).to_be_visible()


def disagree(day: Day) -> None:
    """A colleague takes the next of the queue, and finds it unrelated."""
    page, kind = day.page, day.hands.name
    choose_name(day, "ben")
    day.hands.press(day.link("Review"), "g r")
    expect(page.get_by_role("heading", level=1, name="Review queues")).to_be_visible()
    day.hands.press(page.locator("[data-row]", has_text=f"refunds {kind}"), "j Enter")
    expect(page.get_by_role("heading", level=1, name=f"refunds {kind}")).to_be_visible()
    day.hands.press(day.button("Next for me"), "n")
    expect(page.get_by_role("heading", level=1, name=day.reason)).to_be_visible()
    day.hands.press(page.locator(".audit-verdict").get_by_role("button", name="Unrelated"), "3")
    chips = page.locator(".audit-verdict .chip")
    expect(chips.filter(has_text=f"ann_{kind}: plausible")).to_be_visible()
    expect(chips.filter(has_text=f"ben_{kind}: unrelated")).to_be_visible()
    day.hands.press(day.button("Next for me"), "n")
    expect(page.get_by_text("Nothing is left for you in this queue.")).to_be_visible()


@pytest.mark.parametrize("kind", [Mouse, Keys], ids=["mouse", "keyboard"])
def test_an_auditors_day(open_day: Opened, complaints: list[str], tmp_path: Path, kind: type[Mouse]) -> None:
    """From the flag to the file, and a colleague who sees it otherwise; the browser complains of nothing."""
    day = open_day(kind)
    choose_name(day, "ann")
    make_a_queue(day)
    audit_id = flag(day)
    find_it(day, audit_id)
    read_and_measure(day)
    judge(day)
    tick_two(day)
    put_on_a_list(day)
    ask_what_if(day, audit_id)
    take_the_rows_away(day, tmp_path)
    meet_the_next_model(day)
    disagree(open_day(kind))
    assert complaints == []
