"""Plots and colours on the pages: titled, described, with their numbers beneath, and no two sources alike."""

import re

from sqlalchemy import update
from starlette.testclient import TestClient

from db.models import Audit, Citation, TrainingExample
from db.session import Database
from tests.integration.web.story import Story
from wherefrom.settings import Settings


def test_an_audit_shows_its_scores_against_noise(
    quick_client: TestClient, quick_story: Story, sqlite_story: tuple[Settings, Database]
) -> None:
    """A dot for each citation, the band and the best of chance, and each number in a table; names of sources cannot break out."""
    number = quick_story.audit_ids[0]
    with sqlite_story[1].writing() as session:
        session.execute(update(Audit).where(Audit.id == number).values(noise_level=0.15, noise_best=0.3))
        session.execute(
            update(Citation).where(Citation.audit_id == number, Citation.rank == 1).values(source='"><b>x')
        )
    page = quick_client.get(f"/audits/{number}").text
    section = page.split('id="scores-title"')[1].split("</section>")[0]
    detail = quick_client.get(f"/v1/audits/{number}").json()
    assert section.count('<circle class="plot-dot') == len(detail["citations"]) + len(detail["opponents"])
    assert '<rect class="plot-noise"' in section
    assert "may reach 0.300" in section
    assert section.count("<tr>") == 1 + section.count('<circle class="plot-dot')
    assert "within noise" in section
    assert "above the best of chance" in section
    assert "<b>x" not in section
    labelled = re.search(r'aria-labelledby="([^"]+)"', section)
    assert labelled is not None
    assert all(f'id="{one}"' in section for one in labelled[1].split())


def test_confidence_is_plotted_against_measured_effects(
    quick_client: TestClient, quick_story: Story, sqlite_story: tuple[Settings, Database]
) -> None:
    """Of citations that state a confidence and were measured: how often the interval lies above 0."""
    page = quick_client.get("/review/agreement").text
    assert "plot-measured" not in page
    measured = {"confidence": 0.7, "measured_effect_nats": 0.2, "measured_high_nats": 0.4}
    with sqlite_story[1].writing() as session:
        for rank, low in ((1, 0.1), (2, -0.1)):
            session.execute(
                update(Citation).where(Citation.rank == rank).values(measured | {"measured_low_nats": low})
            )
    page = quick_client.get("/review/agreement").text
    assert page.count('<rect class="plot-measured"') == 1
    row = page.split("60 to 80 %")[1].split("</tr>")[0]
    assert "50%" in row
    assert "Above 0" in page


def test_no_two_sources_of_a_page_have_one_mark(
    quick_client: TestClient, quick_story: Story, sqlite_story: tuple[Settings, Database]
) -> None:
    """Sixty sources on the page of sources, each with a mark of its own."""
    with sqlite_story[1].writing() as session:
        for one in session.query(TrainingExample):
            one.source = f"batch-{one.id}"
    page = quick_client.get("/sources").text
    marks = re.findall(r'class="source src-(\d+)" href="/source\?source=([^"]+)"', page)
    assert len({source for _, source in marks}) == len({mark for mark, _ in marks}) == 60
