"""Fix lists beyond their rows, one source and search, from the command line and over HTTP."""

import json
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from db.clock import db_now
from db.models import Corpus, TrainingExample
from tests.integration.client.conftest import Served
from tests.integration.client.test_cli import RunCommand, lines, run
from wherefrom.client import Service
from wherefrom.errors import InvalidRequest

__all__ = ["run"]


@pytest.fixture
def refunds(run: RunCommand) -> RunCommand:
    """The command, with a fix list that removes the culprits of refunds."""
    run("fix-list-create", "refunds", "--as", "ann")
    asked = ("--culprits", "--reason", "refund_promise", "--most", "2", "--why", "no receipt")
    assert run("fix-list-add", "refunds", *asked, "--as", "ann")[0] == 0
    return run


def test_a_list_is_followed_given_and_closed(refunds: RunCommand, served: Served) -> None:
    """History, another owner, the end; each for people and for programs."""
    assert "no receipt" in refunds("fix-list-history", "refunds")[1]
    events = [one["event"] for one in lines(refunds("fix-list-history", "refunds", "--json")[1])]
    assert events == ["set", "created"]
    refunds("fix-list-create", "of ben", "--as", "ben")
    assert "belongs to ben" in refunds("fix-list-give", "refunds", "--to", "ben", "--as", "ann")[1]
    assert refunds("fix-list-give", "refunds", "--to", "zoe", "--as", "ann")[0] == 4
    assert "is closed" in refunds("fix-list-close", "refunds", "--as", "ben")[1]


def test_a_what_if_is_read_and_measured(refunds: RunCommand, served: Served) -> None:
    """Every list that was asked about, its outputs, and one measurement of the whole list for each chosen output."""
    [asked] = lines(refunds("what-if", "refunds", "--reason", "refund_promise", "--json")[1])
    number = str(asked["what_if_id"])
    assert number in refunds("what-ifs", "refunds")[1]
    assert [one["what_if_id"] for one in lines(refunds("what-ifs", "refunds", "--json")[1])] == [int(number)]
    outputs = [str(one["audit_id"]) for one in lines(refunds("what-if-show", number, "--json")[1])]
    assert outputs[0] in refunds("what-if-show", number)[1]
    chosen = ("--audit", outputs[0], "--audit", outputs[1])
    found = lines(refunds("what-if-measure", number, *chosen, "--json")[1])
    assert [str(one["audit_id"]) for one in found] == outputs[:2]
    again = lines(refunds("what-if-measure", number, *chosen, "--json")[1])
    assert [one["measurement_id"] for one in again] == [one["measurement_id"] for one in found]
    assert "pending" in refunds("what-if-measure", number, "--audit", outputs[0])[1]
    assert refunds("what-if-measure", number, "--audit", "999999")[0] == 2
    assert refunds("what-if-measure", "999", "--audit", outputs[0])[0] == 4


def test_a_stored_corpus_is_cleaned(refunds: RunCommand, served: Served, tmp_path: Path) -> None:
    """What stays, in the order of the corpus, with its fields; a corpus of which only a part is stored is refused."""
    refunds("fix-list-add", "refunds", "--whole-source", "policies", "--action", "keep", "--as", "ann")
    refunds("fix-list-add", "refunds", "--whole-source", "crm_export", "--action", "fix", "--as", "ann")
    with Service(served.url) as service:
        [found] = service.fix_lists()
        rows = list(service.cleaned_corpus(found.list_id))
        gone = {one.example_id for one in service.fix_rows(found.list_id) if one.action.leaves}
        ids = [one["id"] for one in rows]
        assert len(ids) == len(set(ids)) == 120 - len(gone)
        assert not gone & set(ids)
        assert any(one["source"] == "policies" for one in rows)
        assert rows[0].keys() == {"id", "source", "prompt", "completion", "language", "revision"}
        file = tmp_path / "cleaned.jsonl"
        assert "rows written" in refunds("fix-list-rows", "refunds", "--cleaned", "-o", str(file))[1]
        assert lines(file.read_text("utf-8")) == rows
        assert refunds("fix-list-rows", "refunds", "--cleaned")[0] == 2
        asked = ("fix-list-rows", "refunds", "--cleaned", "-o", str(file))
        assert refunds(*asked, "--action", "remove")[0] == 2
        assert refunds(*asked[:2], "--corpus", "0" * 64)[0] == 2
        of_another = refunds(*asked, "--corpus", "0" * 64)
        assert (of_another[0], "name one corpus" in " ".join(of_another[2].split())) == (2, True)
        with served.database.reading() as session:
            [sha256] = session.scalars(select(Corpus.sha256)).all()
        assert refunds(*asked, "--corpus", sha256)[0] == 0
        assert lines(file.read_text("utf-8")) == rows
        answer = httpx.get(f"{served.url}/v1/fix-lists/{found.list_id}/cleaned.jsonl")
        assert "fix-list-clean" in answer.headers["Wherefrom-Note"]
        with pytest.raises(InvalidRequest, match="name one corpus"):
            list(service.cleaned_corpus(found.list_id, corpus="0" * 64))
        erased = update(TrainingExample).where(TrainingExample.example_id == ids[5])
        with served.database.writing() as session:
            session.execute(erased.values(prompt="", completion="", fields={}, erased_at=db_now()))
        left = list(service.cleaned_corpus(found.list_id))
        assert left == [one for one in rows if one["id"] != ids[5]], "nobody trains on an empty row"
        with served.database.writing() as session:
            session.execute(update(Corpus).values(examples=90_000))
        with pytest.raises(InvalidRequest, match="120 of the 90000 rows"):
            list(service.cleaned_corpus(found.list_id))


def test_one_source_and_search(run: RunCommand, served: Served) -> None:
    """With its test, its time and its worst examples; words in training texts."""
    shown = run("source", "vendor_batch_07")[1]
    assert "First citation of" in shown
    assert "strength" in shown
    [found] = lines(run("source", "vendor_batch_07", "--json")[1])
    assert found["blame"]["source"] == "vendor_batch_07"  # type: ignore[index]  # JSON
    assert run("source", "nowhere")[0] == 4
    assert "no stored training text" in run("search", "zzzz")[2]
    first = str(served.story.audit_ids[0])
    assert run("suppose", first, "--completion", "Never.")[0] == 0
    assert "Never." in run("hypotheticals", first)[1]
    assert json.loads(run("hypotheticals", first, "--json")[1])["excerpt"] == "Never."
