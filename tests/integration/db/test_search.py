"""The text search: what it finds, on both engines alike; that it forgets what is erased, and reads no text to find nothing."""

import sqlite3
from typing import Any

import pytest
from sqlalchemy import delete, event, text

from db.models import Audit, ExampleWords, FlaggedText, OutputWords
from db.reading import reader, selection
from db.session import Database
from db.storing import search
from tests.integration.db.builders import (
    accept,
    answered,
    attribution,
    count,
    draft,
    example,
    plan_of,
    record,
    recorded_statements,
)
from wherefrom.records import AuditFilter

#: By the index alone, from texts that are looked through, and by both in turn.
WAYS = ((0, 0), (250, 4_000), (1, 2))


def _listed(db: Database, limit: int = 100, **filters: object) -> list[int]:
    """Every audit that a filter finds; each way there finds the same, page by page too."""
    wanted = AuditFilter.model_validate(filters)
    found = [_all_pages(db, wanted, limit, looked_through) for looked_through in WAYS]
    assert found[1:] == found[:-1]
    return found[0]


def _all_pages(db: Database, wanted: AuditFilter, limit: int, looked_through: tuple[int, int]) -> list[int]:
    found, cursor = [], None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "LOOKED_THROUGH", looked_through)
        while True:
            page = reader.list_audits(db, wanted, cursor=cursor, limit=limit)
            found += [one.audit_id for one in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found


def _flag(db: Database, number: int, completion: str, prompt: str = "Q") -> int:
    (made,) = accept(db, record(number, completion=completion, prompt=prompt))
    assert made.audit_id is not None
    return made.audit_id


@pytest.mark.parametrize(
    ("completion", "wanted", "unwanted"),
    [
        ("Refunds within NINETY days.", "ninety DAY", "days ninety"),
        ("Straße und ÜBERMUT", "STRASSE und über", "strand"),
        ("see foo-bar.com/x?y=1", "foo-bar.com/x", "foo bar"),
        ("退款政策适用于所有产品", "政策适用", "政策不适用"),
        ("สินค้าทุกชิ้น", "ทุกชิ้น", "ทุกวัน"),
        ("هذا رد مشكوك فيه", "رد مشكوك", "رد جيد"),
        ("कोई भी उत्पाद", "भी उत्पाद", "भी नहीं"),
        ("a 'quoted' \"word\" \\ : * ( ) OR NOT & | <->", '"word" \\ : * ( ) OR', "word OR"),
        ("naïve ﬁne ①", "naïve fine 1", "naive"),
        ("line one\nline two\ttabbed", "one line two tabbed", "one two"),
        ("x" * 500 + " tail", "x" * 200, "y"),
        ("emoji 🎉 party", "🎉 party", "🎊"),
        ("0.5% of 1e5", "0.5% of 1e5", "0,5"),
    ],
)
def test_words_side_by_side_in_any_script(db: Database, completion: str, wanted: str, unwanted: str) -> None:
    """Case and forms of letters do not matter, signs do; nothing in a search is an operator."""
    found = _flag(db, 1, completion)
    _flag(db, 2, "Something else entirely")
    assert _listed(db, text=wanted) == [found]
    assert _listed(db, text=unwanted) == []


def test_the_last_word_may_be_cut_short(db: Database) -> None:
    """From three letters on; other words must be whole."""
    found = _flag(db, 1, "unconditional refunds")
    assert _listed(db, text="unconditional ref") == [found]
    assert _listed(db, text="unc") == [found]
    assert _listed(db, text="un") == []
    assert _listed(db, text="uncond refunds") == []


def test_each_place_is_told_apart(db: Database, bundle_id: int) -> None:
    """Prompt, output, cited text; `text` takes all three; an opponent's text does not count."""
    quoted = example(7, prompt="Where from?", completion="From the harbour.")
    against = example(8, prompt="Where to?", completion="To the lighthouse.")
    answer = attribution(draft(1, quoted), draft(-1, against))
    (audit_id,) = answered(
        db, bundle_id, record(1, prompt="Ask politely", completion="Answer rudely"), answer=answer
    )
    search.index_missing(db)
    places: dict[str, Any] = {"in_prompt": "politely", "in_output": "rudely", "in_cited": "the harbour"}
    for place, words in places.items():
        assert _listed(db, **{place: words}) == [audit_id]
        assert _listed(db, text=words) == [audit_id]
        others = [{other: words} for other in places if other != place]
        assert all(_listed(db, **other) == [] for other in others)
    assert _listed(db, text="lighthouse") == []
    assert _listed(db, text="politely rudely") == [], "one text, not two"


@pytest.mark.parametrize("few", [0, 2_000])
def test_both_ways_find_the_same(
    db: Database, bundle_id: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few hits are named, many are passed on the way through the list."""
    monkeypatch.setattr("db.reading.selection.FEW", few)
    ids = answered(db, bundle_id, *(record(number, completion=f"Answer {number % 3}") for number in range(6)))
    search.index_missing(db)
    filters = AuditFilter(text="answer 2", source="source-0", flag_reason="policy", score_min=0.5)
    assert [one.audit_id for one in reader.list_audits(db, filters).items] == [ids[5], ids[2]]
    page = reader.list_audits(db, filters, limit=1)
    assert [one.audit_id for one in reader.list_audits(db, filters, cursor=page.next_cursor).items] == [
        ids[2]
    ]
    assert _listed(db, in_cited="it is 3") == ids[::-1]


def test_erased_words_are_gone(db: Database) -> None:
    """With the text, by the one statement that erases it: from the table of words and from the index."""
    kept, erased = _flag(db, 1, "Zanzibar stays"), _flag(db, 2, "Zanzibar leaves")
    with db.writing() as session:
        output_id = reader.get_audit(db, erased).audit.output_id
        session.execute(delete(FlaggedText).where(FlaggedText.flagged_output_id == output_id))
    assert _listed(db, text="zanzibar") == [kept]
    assert _listed(db, text="leaves") == []
    assert count(db, OutputWords) == 1
    if db.dialect == "sqlite":
        with db.writing() as session:
            session.execute(
                text("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, output_words_fts, row)")
            )
            terms = set(session.scalars(text("SELECT term FROM temp.terms")))
            session.execute(text("DROP TABLE temp.terms"))
            # raises where index and words do not agree
            session.execute(
                text("INSERT INTO output_words_fts(output_words_fts, rank) VALUES ('integrity-check', 1)")
            )
        assert "leaves" not in terms
        assert "stays" in terms


def test_a_client_without_foreign_keys_erases_words_too(sqlite_copy: str) -> None:
    """As `sqlite3` does on the command line."""
    database = Database(sqlite_copy)
    _flag(database, 1, "Zanzibar leaves")
    with sqlite3.connect(sqlite_copy.removeprefix("sqlite:///")) as plain:
        plain.execute("DELETE FROM flagged_text")
    assert count(database, OutputWords) == 0
    assert _listed(database, text="zanzibar") == []
    database.dispose()


def test_rows_of_the_release_before_are_indexed_later(db: Database) -> None:
    """What came without words is found after the sweeper's round, some at a time, and each once."""
    first, second = _flag(db, 1, "early bird"), _flag(db, 2, "early worm")
    with db.writing() as session:
        session.execute(delete(OutputWords))
        session.execute(text("UPDATE flagged_text SET indexed = NULL"))
    assert _listed(db, text="early") == []
    assert search.unindexed(db) == 2
    assert search.index_missing(db, most=1) == 1
    assert _listed(db, text="early") == [first]
    assert search.index_missing(db, most=1) == 1
    assert search.index_missing(db, most=1) == 0
    assert _listed(db, text="early") == [second, first]
    assert search.unindexed(db) == 0


def test_words_that_are_there_already_are_no_trouble(db: Database) -> None:
    """Two sweepers at once, or one that was stopped between its two statements."""
    found = _flag(db, 1, "early bird")
    with db.writing() as session:
        session.execute(text("UPDATE flagged_text SET indexed = NULL"))
    search.index_missing(db)
    assert _listed(db, text="early") == [found]
    assert count(db, OutputWords) == 1


def test_training_examples_are_indexed_once_however_often_they_are_cited(
    db: Database, bundle_id: int
) -> None:
    """Five of them with the bundle; none is left over."""
    answered(db, bundle_id, record(1), record(2))
    search.index_missing(db)
    assert count(db, ExampleWords) == 5
    assert search.unindexed(db) == 0


def test_nothing_is_read_to_find_nothing(db: Database, bundle_id: int) -> None:
    """Two statements, of which the second names no audit."""
    answered(db, bundle_id, record(1))
    search.index_missing(db)
    with recorded_statements() as statements:
        assert _all_pages(db, AuditFilter(text="nobody says this"), 10, (0, 0)) == []
    assert len(statements) == 2
    assert "0 = 1" in statements[1] or "false" in statements[1]


def test_a_frequent_word_is_found_without_the_index(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that the next audits fill asks the index nothing; pages by any way follow each other without a gap."""
    answered(db, bundle_id, *(record(number, completion=f"word {number % 3}") for number in range(9)))
    search.index_missing(db)
    monkeypatch.setattr(selection, "LOOKED_THROUGH", (6, 8))
    with recorded_statements() as statements:
        page = reader.list_audits(db, AuditFilter(in_output="word"), limit=3)
    assert len(page.items) == 3
    assert len(statements) == 2
    assert not any("MATCH" in one or "@@" in one for one in statements)
    monkeypatch.setattr(selection, "FEW", 1)
    assert len(_listed(db, limit=2, in_output="word 1")) == 3
    assert len(_listed(db, limit=2, text="word")) == 9
    assert len(_listed(db, limit=2, text="word", severity=record().severity)) == 9


def test_an_example_that_many_cite_is_found_among_the_next_audits(
    db: Database, bundle_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that the next audits fill reads no other that cites it; where they do not, the next way finds all, page by page."""
    answered(db, bundle_id, *(record(number) for number in range(9)))
    cited = "ex-00000"
    everything = _listed(db, example=cited)
    assert len(everything) == 9
    monkeypatch.setattr(selection, "FEW", 1)
    monkeypatch.setattr(selection, "CITING_LOOKED_THROUGH", 4)
    with recorded_statements() as statements:
        page = reader.list_audits(db, AuditFilter(example=cited), limit=3)
    assert [one.audit_id for one in page.items] == everything[:3]
    assert len(statements) == 3
    assert "OFFSET" in statements[-1]
    for limit in (2, 4, 5):
        assert _listed(db, limit=limit, example=cited) == everything
    assert _listed(db, limit=2, example=cited, flag_reason="nobody") == []


def test_best_supported_first_follows_an_index(sqlite_copy: str) -> None:
    """Many audits share the least p: to sort them reads all that do."""
    listed = reader.select_audits(Audit.id).where(Audit.conformal_p.is_not(None))
    listed = listed.order_by(Audit.conformal_p, Audit.id).limit(51)
    with Database(sqlite_copy) as database:
        with database.reading() as session:
            asked = str(listed.compile(session.connection(), compile_kwargs={"literal_binds": True}))
        plan = plan_of(database, asked)
    assert any("ix_audit_conformal_p_id" in one for one in plan)
    assert not any("TEMP B-TREE" in one for one in plan)


@pytest.mark.parametrize(
    "further",
    [
        {},
        {"state": "done"},
        {"flag_reason": "spam"},
        {"severity": "high"},
        {"bundle": "b"},
        {"top_source": "s"},
        {"since": "2026-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_the_next_audits_are_read_by_their_numbers(sqlite_copy: str, further: dict[str, str]) -> None:
    """Another filter beside the text does not let SQLite read all that its own index finds."""
    database, noted = Database(sqlite_copy), list[tuple[str, Any]]()
    wanted = AuditFilter.model_validate({"text": "word", **further})
    found = selection._among(range(1, 251), wanted, None, partial=True)

    def note(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        noted.append((statement, parameters))

    with database.reading() as session:
        event.listen(session.connection(), "before_cursor_execute", note)
        session.execute(reader.select_audits(Audit.id).where(*found.conditions)).all()
    [(statement, parameters)] = noted
    plan = plan_of(database, statement, parameters)
    database.dispose()
    assert "SEARCH audit USING INTEGER PRIMARY KEY (rowid=?)" in plan


def test_long_texts_are_indexed_up_to_a_bound(db: Database) -> None:
    """Half a million different words fit; those behind the bound are not found, and nothing fails."""
    words = " ".join(f"w{number}" for number in range(120_000))
    found = _flag(db, 1, words)
    assert _listed(db, text="w7 w8 w9") == [found]
    assert _listed(db, text="w119999") == []
