"""docs/sql.md and the views say the same, and every example of the page runs on both engines."""

import re
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from db.access import people
from db.comparison import comparisons
from db.grouping import finding_names, finding_work
from db.models import FindingOutput
from db.queues.audit_queue import AuditQueue, Finished
from db.remedies import fix_lists, fix_rows, what_ifs
from db.reviewing import bulk, review_queues, review_work, reviews
from db.session import Database
from db.sql_views.views import VIEWS
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    claim,
    draft,
    example,
    five_citations,
    record,
    register,
)
from wherefrom.records import (
    AuditFilter,
    FixChange,
    FixListDraft,
    ModulePart,
    QueueDraft,
    ReviewDraft,
    Verdict,
    Via,
)

_PAGE = (Path(__file__).parents[3] / "docs" / "sql.md").read_text(encoding="utf-8")
_EXAMPLES = re.findall(r"```sql\n(.*?)```", _PAGE, flags=re.DOTALL)


def _documented_columns(view: str) -> list[str]:
    section = re.split(r"^## ", _PAGE, flags=re.MULTILINE)
    (table,) = (one for one in section if one.startswith(f"{view}\n"))
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)


@pytest.fixture
def filled(db: Database, bundle_id: int) -> Database:
    """Done audits, one that waits for a bundle, and two people of different minds."""
    parts = (
        ModulePart(by="block", name="0", influence=0.2, usual_share=0.5),
        ModulePart(by="block", name="1", influence=0.05, usual_share=0.5),
        ModulePart(by="linear", name="o_proj", influence=0.25, usual_share=None),
    )
    answer = five_citations()
    first = answer.citations[0].model_copy(update={"modules": parts})
    answer = answer.model_copy(update={"citations": (first, *answer.citations[1:])})
    first_id, _ = answered(db, bundle_id, record(1, completion="A refund, always."), record(2), answer=answer)
    accept(db, record(3, model="another"))
    queue = QueueDraft(name="refunds", rule=AuditFilter(text="refund"))
    review_queues.fill(db, review_queues.create_queue(db, queue, created_by=None))
    for name, verdict in (("ann", Verdict.CONFIRMED), ("ben", Verdict.UNRELATED)):
        by = reviews.Reviewer(people.choose_local(db, name).ref, Via.LOCAL)
        review_work.take_next(db, 1, by.person.person_id)
        reviews.judge(db, first_id, ReviewDraft(rank=1, verdict=verdict), by=by)
        fix_list = fix_lists.create_list(db, FixListDraft(name=f"list of {name}"), by=by)
        fix_rows.change_rows(db, fix_list, FixChange(training_example_ids=(1,)), by=by)
    with db.writing() as session:
        founded = finding_work.new_finding(session, bundle_id, outputs=1, title="refunds")
        place = {"audit_id": first_id, "bundle_id": bundle_id, "finding_id": founded, "exemplar": True}
        session.execute(insert(FindingOutput), [place])
    finding_names.name_finding(db, founded)
    what_ifs.ask(db, 1, AuditFilter(), most=10, by="ann")
    return db


@pytest.fixture
def compared(filled: Database) -> Database:
    """The same with an output that another bundle answered too."""
    db = filled
    second = register(db, "bundle-b", form="activation", activate=False)
    bulk.reaudit(db, AuditFilter(), second)
    (again,) = claim(db, second, limit=1).audits
    AuditQueue(db).finish([Finished(again, attribution(draft(1, example(2))), 0.5)])
    comparisons.compare_bundles(db, "bundle-a", "bundle-b")
    return db


@pytest.mark.parametrize("view", sorted(VIEWS))
def test_every_column_is_documented(db: Database, view: str) -> None:
    """In the order in which the view has them."""
    with db.reading() as session:
        assert list(session.execute(text(f"SELECT * FROM {view}")).keys()) == _documented_columns(view)


def test_the_page_has_examples() -> None:
    """The test below would pass on a page without any."""
    assert len(_EXAMPLES) >= 8


@pytest.mark.parametrize("query", _EXAMPLES, ids=range(len(_EXAMPLES)))
def test_examples_run(compared: Database, query: str) -> None:
    """Each one runs and finds something in a small database; the one about disagreement may find nothing."""
    with compared.reading() as session:
        rows = session.execute(text(query)).all()
    assert rows or "similarity_score > 0.5" in query


def test_audits_and_citations(filled: Database) -> None:
    """One row per audit, one per citation, also for audits without a bundle."""
    with filled.reading() as session:
        states = session.execute(text("SELECT state, bundle FROM v_audits ORDER BY audit_id")).all()
        sides = session.execute(
            text("SELECT side, rank FROM v_citations WHERE audit_id = 1 ORDER BY rank")
        ).all()
    assert [tuple(one) for one in states] == [("done", "bundle-a"), ("done", "bundle-a"), ("rejected", None)]
    assert [tuple(one) for one in sides] == [
        ("opponent", -1),
        *(("proponent", rank) for rank in (1, 2, 3, 4)),
    ]


def test_parts_of_the_model_are_summed_by_the_example(filled: Database) -> None:
    """The example over the JSON column gives the shares on both engines; citations without parts count for nothing."""
    (query,) = (one for one in _EXAMPLES if "usual_share" in one)
    with filled.reading() as session:
        rows = [tuple(one) for one in session.execute(text(query)).all()]
    assert rows == [
        ("block", "0", pytest.approx(0.8), pytest.approx(0.5), 2),
        ("block", "1", pytest.approx(0.2), pytest.approx(0.5), 2),
        ("linear", "o_proj", pytest.approx(1.0), None, 2),
    ]
