"""The ten questions of docs/questions.md are answered by both engines as they stand there, on the demo's own ids."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from db.session import Database
from tests.integration.web.demo_answers import fill_with_demo

_PAGE = (Path(__file__).parents[3] / "docs" / "questions.md").read_text(encoding="utf-8")
QUESTIONS = re.findall(
    r"^## (\d+\. .*?)\n.*?```sql\n(.*?)```\n\n```text\n(.*?)```", _PAGE, re.MULTILINE | re.DOTALL
)


@pytest.fixture
def worked(database: Database, database_url: str, client: TestClient) -> Database:
    """The demo after a morning's work: a queue that two people judge, and a fix list, all over HTTP."""
    fill_with_demo(database, database_url)

    def post(path: str, **body: object) -> None:
        answer = client.post(path, json=body)
        assert answer.is_success, answer.text

    reason = {"flag_reason": "refund_promise", "sort": "oldest"}
    listed = client.get("/v1/audits", params=reason).json()["items"]
    first, second = (one["audit_id"] for one in listed[:2])
    post("/v1/review-queues", name="refunds", rule={"flag_reason": "refund_promise"}, reviewers=2)
    for name, verdict in (("ann", "confirmed"), ("ben", "unrelated")):
        post(f"/v1/review-queues/1/next?reviewer={name}")
        post(f"/v1/audits/{first}/reviews?reviewer={name}", verdict=verdict, rank=1)
    post(f"/v1/audits/{second}/reviews?reviewer=ann", verdict="confirmed", rank=1)
    post(f"/v1/audits/{first}/reviews?reviewer=ann", verdict="confirmed")
    post("/v1/fix-lists?reviewer=ann", name="refund promises")
    rows = "/v1/fix-lists/1/rows?reviewer=ann"
    post(rows, culprits={"flag_reason": "refund_promise"}, most=10, reason="no refund after two years")
    post("/v1/fix-lists/1/rows?reviewer=ben", source="policy-handbook", action="keep", reason="our own rules")
    return database


def answer_of(database: Database, query: str) -> str:
    """The rows of an answer as the page shows them."""
    with database.reading() as session:
        rows = session.execute(text(query)).all()
    return "".join(" | ".join("" if one is None else str(one) for one in row).rstrip() + "\n" for row in rows)


def test_ten_questions_are_answered_as_the_page_says(worked: Database) -> None:
    """Row for row, and none is empty."""
    assert len(QUESTIONS) == 10
    for question, query, answer in QUESTIONS:
        assert answer.strip()
        assert answer_of(worked, query) == answer, question
