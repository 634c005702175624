"""Take the pictures of the desk: `python -m scripts.desk_pictures --out FOLDER`.

Starts the service over the story of the tests (no model is needed), opens its pages in the system's Chromium, light and dark, wide and
1,024 pixels wide, and writes PNG files with a palette. `--only list audit-dark` takes some. docs/images/desk holds the ones that docs/desk.md shows.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

from PIL import Image
from playwright.sync_api import Browser, Page
from sqlalchemy import update

from db import signs
from db.access import people
from db.clock import db_after
from db.measuring import measurements
from db.models import Measurement
from db.notices import outbox
from db.queues.what_if_queue import WhatIfQueue
from db.remedies import fix_lists, fix_rows, what_ifs
from db.reviewing import bulk, review_queues, review_work, reviews
from db.reviewing.reviews import Reviewer
from db.session import Database
from db.storing import search
from scripts.chromium import browsing
from scripts.web_thread import serving
from tests.integration.web import story
from tests.integration.web.sequel import (
    AFTER,
    BEFORE,
    answer_all,
    answer_one,
    group_story,
    next_model,
    with_evidence,
)
from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.errors import WebhookGone
from wherefrom.metrics import Metrics
from wherefrom.records import (
    AuditFilter,
    FixAction,
    FixChange,
    FixListDraft,
    ItemState,
    ListScore,
    Method,
    Notice,
    NoticeKind,
    QueueDraft,
    ReviewDraft,
    Verdict,
    Via,
)
from wherefrom.settings import Settings
from wherefrom.terminal import say

Scheme = Literal["light", "dark"]
#: Width and height of a window, and colours of a picture; with fewer, sources look alike.
WINDOWS = ((1400, 900), (1024, 768))
COLOURS = 256
OUTPUT = "Of course! We refund every product at any time, no receipt needed and no questions asked."
#: A right-to-left answer, and one of about 10,000 tokens; nobody chose these pages for their looks.
RIGHT_TO_LEFT = "بالطبع! نعيد ثمن كل منتج في أي وقت، ولا حاجة إلى إيصال." + " We refund every product."
LONG = "We refund every product at any time, and you need no receipt for any of them. " * 600


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--only", nargs="*", default=[""], help="take only pictures whose names begin so")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as (url, pages), browsing() as browser:
        for scheme in get_args(Scheme):
            for width, height in WINDOWS:
                wanted = {f"{name}-{scheme}-{width}": path for name, path in pages.items()}
                wanted = {name: path for name, path in wanted.items() if name.startswith(tuple(given.only))}
                if wanted:
                    take(browser, url, wanted, out=given.out, scheme=scheme, size=(width, height))


def take(
    browser: Browser, url: str, pages: dict[str, str], *, out: Path, scheme: Scheme, size: tuple[int, int]
) -> None:
    """Take the pictures of one window, as an auditor who has chosen a name sees the pages."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.goto(f"{url}/sign-in")
    page.get_by_label("Name").fill("ann")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/")
    for name, path in pages.items():
        show(page, url + path)
        write(page.screenshot(), out / f"{name}.png")
        say(f"{name}.png: {(out / f'{name}.png').stat().st_size:,} bytes")
    context.close()


def show(page: Page, address: str) -> None:
    """Open a page; `!x` behind the address presses a key there."""
    where, _, keys = address.partition("!")
    page.goto(where)
    for key in keys.split():
        page.keyboard.press(key)


def write(png: bytes, path: Path) -> None:
    """Write a picture with a palette."""
    with Image.open(BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The service over the story: its address, and its pages by name."""
    url = f"sqlite:///{folder / 'desk.db'}"
    database = Database(url)
    pages = fill(database, url)
    secret = "of-pictures-only-and-of-nothing-else-0123"  # noqa: S105 - signs a session of this run
    settings = Settings.model_validate(
        {
            "database_url": url,
            "session_secret": secret,
            "recipe": "recipe.json",
            "state_dir": folder / "state",
        }
    )
    with serving(create_app(settings, database, metrics=Metrics(), queue=SilentProbe())) as address:
        yield address, pages
    database.dispose()


def fill(database: Database, url: str) -> dict[str, str]:
    """The story with a day of work done; the pages by name."""
    told = story.fill_with_story(database, url=url, num_outputs=24, num_examples=120)
    rich, arabic, long = (
        answer_one(told, database, with_evidence, completion=text) for text in (OUTPUT, RIGHT_TO_LEFT, LONG)
    )
    ann, ben = (Reviewer(people.choose_local(database, name).ref, Via.LOCAL) for name in ("ann", "ben"))
    judge(database, rich, ann=ann, ben=ben)
    what_if, fix_list = suppose(database, told.bundle_id, ann)
    group_story(database)
    following = next_model(database)
    bulk.reaudit(database, AuditFilter(bundle=BEFORE), following)
    answer_all(database, following)
    blind = review_work.list_items(database, 2, state=ItemState.OPEN, after=None, limit=1)
    work_on(database, told.bundle_id)
    return {
        "today": "/today",
        "list": "/",
        "found": "/?text=refund",
        "empty": "/?text=nothing-has-this&flag_reason=refund_promise",
        "wrong": "/?since=yesterday-ish&flag_reason=refund_promise&source=vendor_batch_07",
        "audit": f"/audits/{rich}",
        "ticked": f"/audits/{rich}!j x j x",
        "rtl": f"/audits/{arabic}",
        "long": f"/audits/{long}",
        "queue": "/review/1",
        "work": "/review/1/items/1",
        "blind": f"/review/2/items/{blind[0].item_id}",
        "findings": "/findings",
        "finding": "/findings/1",
        "sources": "/sources",
        "source": "/source?source=vendor_batch_07",
        "culprits": "/culprits?flag_reason=refund_promise",
        "fix-list": f"/fix-lists/{fix_list}",
        "what-if": f"/what-ifs/{what_if}",
        "compare": f"/compare?bundle={BEFORE}&other={AFTER}",
        "bulk": "/bulk?flag_reason=refund_promise",
        "export": "/export",
        "service": "/queue",
        "queues": "/review",
        "queue-new": "/review/new?flag_reason=refund_promise",
        "agreement": "/review/agreement",
        "bundles": "/bundles",
        "bundle": f"/bundles/{BEFORE}",
        "trail": "/trail",
        "search": "/examples?text=refund",
        "fix-lists": "/fix-lists",
        "sign-in": "/sign-in",
        "missing": "/audits/9999999",
        "example": "/examples/12",
        "keys": "/!?",
    }


def work_on(database: Database, bundle_id: int) -> None:
    """Processes at work, and some work that is stuck."""
    for number, role in enumerate(("attribute", "attribute", "sweep", "intake"), start=1):
        loaded = (bundle_id,) if role == "attribute" else ()
        signs.give_sign(database, signs.Sign(f"node-1:{number}", role, "node-1", 4000 + number, loaded))
    measurements.request_measurement(database, audit_id=1, rank=1, method=Method.REFIT, requested_by="ann")
    with database.writing() as session:
        session.execute(update(Measurement).values(created_at=db_after(-3600)))
        outbox.announce(session, Notice(kind=NoticeKind.AUDITS_DEAD))
    notice = outbox.claim(database, lease_s=60)
    if notice is not None:
        outbox.failed(database, notice, WebhookGone("the receiver answered 410"), wait_s=1, max_attempts=1)
    while search.index_missing(database):
        pass


def judge(database: Database, audit_id: int, *, ann: Reviewer, ben: Reviewer) -> None:
    """Two queues, one of them blind, and verdicts that differ."""
    for name, blind, most in (("refunds", False, 2), ("refunds, blind", True, 1)):
        draft = QueueDraft(
            name=name, rule=AuditFilter(flag_reason="refund_promise"), blind=blind, reviewers=most
        )
        review_queues.create_queue(database, draft, created_by=ann.person.person_id)
    review_queues.fill_all(database)
    comment = "The vendor's batch promises refunds without a receipt; our policy needs one."
    for by, rank, verdict in (
        (ann, 1, Verdict.CONFIRMED),
        (ann, None, Verdict.PLAUSIBLE),
        (ben, None, Verdict.UNRELATED),
    ):
        reviews.judge(
            database,
            audit_id,
            ReviewDraft(rank=rank, verdict=verdict, comment=comment if rank else ""),
            by=by,
        )


def suppose(database: Database, bundle_id: int, by: Reviewer) -> tuple[int, int]:
    """A fix list with rows of a source, and an answered what-if; their numbers, the what-if's first."""
    draft = FixListDraft(name="refund promises", note="Before the training of January")
    number = fix_lists.create_list(database, draft, by=by)
    change = FixChange(
        culprits=AuditFilter(flag_reason="refund_promise"),
        most=8,
        action=FixAction.REMOVE,
        reason="promises refunds",
    )
    fix_rows.change_rows(database, number, change, by=by)
    asked = what_ifs.ask(database, number, AuditFilter(), most=12, by="ann")[0]
    claimed = WhatIfQueue(database).claim(bundle_id, owner="pictures", lease_s=60)
    if claimed is not None:
        scores = [
            ListScore(key=str(audit_id), score=z / 2, z=z, chance=0.005 if z > 2 else 0.4)
            for place, (audit_id, record) in enumerate(claimed.outputs, start=1)
            for z in [(4.6 if record.reason == "refund_promise" else 0.9) - place / 20]
        ]
        WhatIfQueue(database).store(claimed, scores, {})
    return asked.what_if_id, number


if __name__ == "__main__":
    main()
