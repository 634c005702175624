"""The reading half of the command line against the real service."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
from sqlalchemy import select, text, update

from db.measuring import measuring_checks
from db.models import Audit, Citation
from db.queues.measurement_queue import MeasurementQueue
from db.queues.queue import Failure
from tests.integration.client.conftest import Served
from tests.integration.web.sequel import group_story
from tests.integration.web.story import MODEL
from wherefrom.cli import main
from wherefrom.client import Service
from wherefrom.records import (
    ControlEffect,
    ExpectedCost,
    MeasuredEffect,
    MeasurementState,
    MeasuringCheck,
)

RunCommand = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunCommand:
    """Runs the command against the service; exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")

    def run_command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--url", served.url])
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run_command


def lines(text: str) -> list[dict[str, object]]:
    """The objects of JSON lines."""
    return [json.loads(one) for one in text.splitlines()]


def test_audits(run: RunCommand) -> None:
    """The list is a table for people and JSON lines for programs, with filters and a limit."""
    code, out, _ = run("audits", "--state", "done", "--limit", "3")
    assert code == 0
    assert out.count("done") == 3
    assert len(lines(run("audits", "--limit", "0", "--json")[1])) == 25
    assert {one["severity"] for one in lines(run("audits", "--severity", "critical", "--json")[1])} == {
        "critical"
    }
    code, out, err = run("audits", "--model", "none")
    assert (code, out, err) == (0, "", "no audit matches\n")


def test_a_judged_list(run: RunCommand, served: Served) -> None:
    """With --fdr each line says whether it is supported, and the finding over the whole listing stands on stderr."""
    with served.database.writing() as session:
        session.execute(text("UPDATE audit SET conformal_p = 0.001 WHERE id IN (1, 2)"))
        session.execute(text("UPDATE audit SET conformal_p = 0.8 WHERE id = 3"))
    code, out, err = run("audits", "--state", "done", "--fdr", ".1", "--limit", "0")
    assert code == 0
    assert "supported" in out.splitlines()[0]
    assert [line.split()[-1] for line in out.splitlines()].count("yes") == 2
    assert err.startswith("2 of 3 audits are supported at a false discovery rate of 10 %.")
    judged = lines(run("audits", "--fdr", ".1", "--limit", "0", "--json")[1])
    assert {one["audit_id"] for one in judged if one["supported"]} == {1, 2}
    assert run("audits", "--fdr", "10")[0] == 2


def test_trail(run: RunCommand, served: Served) -> None:
    """The newest events as a table and as JSON lines, by filters, page after page."""
    code, out, _ = run("trail", "--kind", "audit.finished", "--limit", "2")
    assert (code, out.count("audit.finished"), "service" in out) == (0, 2, True)
    found = lines(run("trail", "--limit", "20", "--json")[1])
    numbers = [int(str(one["event_id"])) for one in found]
    assert len(found) == 20
    assert numbers == sorted(numbers, reverse=True)
    subject = f"audit:{served.story.audit_ids[0]}"
    assert [one["subject"] for one in lines(run("trail", "--subject", subject, "--json")[1])] == [subject]
    assert "no event" in "".join(map(str, run("trail", "--until", "2020-01-01")))
    assert run("trail", "--since", "never")[0] == 2


def test_show(run: RunCommand, served: Served) -> None:
    """One audit is shown with its output and citations; a missing one is exit code 4."""
    number = str(served.story.audit_ids[0])
    code, out, _ = run("show", number)
    assert code == 0
    for expected in ("flagged output", "Citations", "Opponents", "We refund every product at any time"):
        assert expected in out
    assert lines(run("show", number, "--json")[1])[0]["citations"]
    code, _, err = run("show", "999999")
    assert code == 4
    assert err.startswith("error[not_found]: ")


def test_show_of_an_audit_without_an_answer(run: RunCommand, served: Served) -> None:
    """Not computed is not the same as nothing found: the state is told in place of a table, and no loss of nothing."""
    with served.database.reading() as session:
        waiting = session.scalars(select(Audit.id).where(Audit.state == "pending")).first()
    code, out, _ = run("show", str(waiting))
    assert code == 0
    assert "No citations: it waits for a worker" in out
    assert "no training example is cited" not in out
    assert "nats over" not in out


def test_show_tells_what_carries_a_citation_and_what_is_not_supported(
    run: RunCommand, served: Served
) -> None:
    """Stretches, common runs, near-duplicates and p-values; an abstained audit's citations are marked as not supported."""
    spans = [{"output": {"start": 0, "end": 10}, "example": {"start": 0, "end": 5}, "share": 0.4}]
    overlaps = [{"output": {"start": 3, "end": 12}, "example": {"start": 3, "end": 12}, "tokens": 2}]
    with served.database.writing() as session:
        cited = (Citation.audit_id == served.story.audit_ids[0], Citation.rank == 1)
        parts = [
            {"by": by, "name": name, "influence": value}
            for by, name, value in (("block", "3", 0.1), ("block", "12", 0.3), ("linear", "o_proj", 0.4))
        ]
        values = {
            "spans": spans,
            "overlaps": overlaps,
            "duplicates": 7,
            "confidence": 0.5,
            "modules": parts,
            "sign_determined": False,
        }
        session.execute(update(Citation).where(*cited).values(**values))
        answered = {
            "conformal_p": 0.25,
            "weak": True,
            "noise_best": 0.125,
            "state": "abstained",
            "code": "no_support",
            "reason": "as good as controls",
        }
        session.execute(update(Audit).where(Audit.id == served.story.audit_ids[0]).values(**answered))
    code, out, _ = run("show", str(served.story.audit_ids[0]))
    assert code == 0
    for expected in (
        "abstained (no_support)", "as good as controls", "NOT SUPPORTED", "conformal p 0.25", "(+7 alike)", "confidence",
        "Text that carries the influence", "40 % of the positive influence", "2 tokens word for word",
        "Parts of the model that carry the influence", "12 +0.300, 3 +0.100", "o_proj +0.400", "mostly block 12 (75 %)",
        "sign not determined", "Weak: no influence score is above", "(0.125)",
    ):  # fmt: skip
        assert expected in out, expected


def test_measure(run: RunCommand, served: Served) -> None:
    """Asking answers at once; when it is measured the effect stands beside its controls, and `show` has it too."""
    number = str(served.story.audit_ids[0])
    code, out, _ = run("measure", number, "1")
    assert (code, "refit: pending" in out) == (0, True)
    asked = lines(run("measure", number, "1", "--json")[1])[0]
    assert (asked["state"], asked["rank"]) == ("pending", 1)
    claimed = MeasurementQueue(served.database).claim(
        served.story.bundle_id, owner="m", lease_s=60, max_attempts=5
    )
    assert claimed is not None
    effect = MeasuredEffect(
        effect_nats=0.5, low_nats=0.25, high_nats=0.75, z=4.0, seeds=3, group=("a", "b"), weak=False, cost_seconds=9,
        controls=(ControlEffect(example_ids=("c",), effect_nats=0.015),),
    )  # fmt: skip
    MeasurementQueue(served.database).finish(claimed, effect)
    code, out, _ = run("measure", number, "1", "--wait")
    assert code == 0
    for expected in (
        "refit: done", "group of 2", "0.5000 [0.2500, 0.7500]", "0.0150", "4.0 standard errors from the controls.",
        "A positive effect means that the output is less likely without the example.", "3 seeds; 9 s of computing",
    ):  # fmt: skip
        assert expected in out, out
    assert "measured" in run("show", number)[1]
    assert run("measure", number, "99")[0] == 4


def test_measuring_many_examples(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """By source or by a list of ids; asked for again it says why it failed, what it will cost, then what came out."""
    number = str(served.story.audit_ids[1])
    ids = tmp_path / "fix.txt"
    ids.write_text("\ufeffex-2\n\n ex-1 \n", encoding="utf-8")
    for wrong in ((), ("1", "--source", "a"), ("--source", "a", "--example", "b"), ("--source", "a", "--method", "unlearn"), ("--examples", str(tmp_path))):  # fmt: skip
        code, _, err = run("measure", number, *wrong)
        assert (code != 0, "Traceback" in err) == (True, False), wrong
    code, out, _ = run("measure", number, "--examples", str(ids), "--example", "ex-3")
    assert (code, "3 training examples on audit" in out, "pending" in out) == (0, True, True)
    queue = MeasurementQueue(served.database).groups
    claimed = queue.claim(served.story.bundle_id, owner="m", lease_s=60, max_attempts=5)
    assert claimed is not None
    assert claimed.request.example_ids == ("ex-1", "ex-2", "ex-3")
    queue.fail(claimed.lease, Failure("configuration", "no layers", retry_in_s=None), max_attempts=5)
    cost = ExpectedCost(trainings=15, seconds=1200, memory_bytes=3 * 2**30, tokens=999, timed=True)
    measuring_checks.save(served.database, served.story.bundle_id, MeasuringCheck(cost=cost))
    again = run("measure", number, "--examples", str(ids), "--example", "ex-3")[1]
    for expected in (
        "It failed before. configuration: no layers",
        "at most 15 trainings",
        "about 20 min",
        "3.0 GiB",
    ):
        assert expected in again, again
    claimed = queue.claim(served.story.bundle_id, owner="m", lease_s=60, max_attempts=5)
    assert claimed is not None
    effect = MeasuredEffect(
        effect_nats=0.5, low_nats=0.25, high_nats=0.75, z=4.0, seeds=3, group=tuple(map(str, range(12))), weak=False, cost_seconds=9,
        controls=(ControlEffect(example_ids=("c",) * 12, effect_nats=0.015),), controls_mean_nats=0.002,
    )  # fmt: skip
    queue.finish(claimed, effect)
    code, out, _ = run("measure", number, "--examples", str(ids), "--example", "ex-3", "--wait")
    for expected in (
        "without all 12",
        "0.5000 [0.2500, 0.7500]",
        "7, ... (12 in all)",
        "a change of +0.0020 nats",
    ):
        assert expected in out, out
    assert lines(run("measure", number, "--source", "forum", "--json")[1])[0]["request"] == {
        "example_ids": [],
        "source": "forum",
    }


def test_a_measurement_that_dies_is_told(run: RunCommand, served: Served) -> None:
    """The client reads its code and reason; asking again would queue it again."""
    number = str(served.story.audit_ids[0])
    with Service(served.url) as service:
        service.measure(int(number), 2)
    claimed = MeasurementQueue(served.database).claim(
        served.story.bundle_id, owner="m", lease_s=60, max_attempts=5
    )
    assert claimed is not None
    MeasurementQueue(served.database).fail(
        claimed.lease, Failure("configuration", "no layers", retry_in_s=None), max_attempts=5
    )
    with Service(served.url) as service:
        found = service.measurement(claimed.measurement_id)
    assert (found.state, found.code) == (MeasurementState.DEAD, "configuration")


def test_escape_sequences_are_shown(run: RunCommand, served: Served) -> None:
    """A flagged output that tries to drive the terminal is shown as text, in the table, alone and as JSON."""
    with Service(served.url) as service:
        attack = "\x1b]52;c;cm0gLXJm\x07\x9b2J\u202egnp.exe [bold]"
        result = service.flag_now(
            {"prompt": "\x1b[8m", "completion": attack, "model": MODEL, "reason": "\x1b[31m"}
        )
    for command in (
        ("audits",),
        ("show", str(result.audit_id)),
        ("audits", "--json"),
        ("show", str(result.audit_id), "--json"),
    ):
        _, out, _ = run(*command)
        assert not set(out) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "\\x1b]52;c;cm0gLXJm\\x07\\x9b2J\\u202egnp.exe [bold]" in run("show", str(result.audit_id))[1]


def test_cited_by(run: RunCommand, served: Served) -> None:
    """The reverse question takes the corpus's id or the database's number."""
    with Service(served.url) as service:
        cited = service.audit(served.story.audit_ids[0]).citations[0]
    code, out, _ = run("cited-by", cited.example_id)
    assert code == 0
    assert cited.example_id in out
    by_number = lines(run("cited-by", str(cited.training_example_id), "--by-number", "--json")[1])
    assert by_number == lines(run("cited-by", cited.example_id, "--json")[1])
    assert run("cited-by", "no-such")[0] == 4
    assert run("cited-by", "no-such", "--by-number")[0] == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [("sources", "vendor_batch_07"), ("queue", "pending"), ("bundles", "b-5f0c9a7d31e2")],
)
def test_other_tables(run: RunCommand, command: str, expected: str) -> None:
    """Each table holds the story, for people and for programs."""
    code, out, _ = run(command)
    assert code == 0
    assert expected in out
    assert expected in run(command, "--json")[1]


def test_export_jsonl(run: RunCommand, tmp_path: Path) -> None:
    """JSONL holds every audit whole, and leaves no other file behind."""
    code, out, _ = run("export", "--output", str(tmp_path / "x" / "audits.jsonl"))
    assert code == 2  # no such folder
    (tmp_path / "x").mkdir()
    code, out, _ = run("export", "--output", str(tmp_path / "x" / "audits.jsonl"), "--json")
    assert code == 0
    assert lines(out)[0]["audits"] == 25
    assert [one.name for one in (tmp_path / "x").iterdir()] == ["audits.jsonl"]
    exported = lines((tmp_path / "x" / "audits.jsonl").read_text())
    assert sum(bool(one["citations"]) for one in exported) == 18


def test_export_csv_and_parquet(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """CSV and Parquet hold the same rows, one per citation; a formula is made harmless in CSV only."""
    with Service(served.url) as service:
        service.flag_now({"prompt": "p", "completion": "=1+1", "model": MODEL})
    assert run("export", "-o", str(tmp_path / "a.csv"))[0] == 0
    assert run("export", "--format", "parquet", "-o", str(tmp_path / "a.parquet"))[0] == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert len(rows) == len(table) == 18 * 12 + 8
    assert [row["completion"] for row in rows if "1+1" in row["completion"]] == ["'=1+1"]
    assert [row["completion"] for row in table if "1+1" in row["completion"]] == ["=1+1"]
    assert {type(row["score"]) for row in table if row["rank"]} == {float}


def test_failed_export_leaves_the_old_file(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """When the service goes away, the file of the last export stays as it was, and no part file is left."""
    output = tmp_path / "audits.jsonl"
    output.write_text("old")
    with pytest.raises(SystemExit) as ended:
        main(["export", "-o", str(output), "--url", "http://127.0.0.1:1"])
    assert ended.value.code == 3
    assert output.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir() if "part" in one.name] == []


def test_lists_as_a_whole_from_the_command_line(run: RunCommand, served: Served) -> None:
    """Counted, ordered, kept as a view, judged; each with a preview or a number."""
    listed = lines(run("audits", "--state", "done", "--sort", "oldest", "--json")[1])
    assert run("audits", "--state", "done", "--count")[1].strip() == str(len(listed))
    numbers = [int(str(one["audit_id"])) for one in listed]
    assert numbers == sorted(numbers)
    ann = ("--as", "ann")
    assert "is kept" in run("view-save", "mine", "--state", "done", "--since", "7d", *ann)[1]
    [view] = lines(run("views", "--json", *ann)[1])
    assert view["parameters"] == {"state": "done", "since": "7d"}
    assert "mine" in run("views", *ann)[1]
    [gone] = lines(run("view-delete", "mine", "--json", *ann)[1])
    assert gone["view_id"] == view["view_id"]
    assert run("view-delete", "mine", *ann)[0] == 4
    assert run("bulk", "requeue", "--state", "done", "--dry-run")[1].startswith("0 audits")
    [done] = lines(run("bulk", "verdict", "--give", "unrelated", "--state", "done", "--json", *ann)[1])
    assert done == {"changed": len(listed), "left": 0}
    assert run("bulk", "verdict", "--state", "done")[0] == 2
    assert run("audits", "--verdict", "unrelated", "--count")[1].strip() == str(len(listed))
    preview = run("bulk", "take_back", "--state", "done", "--dry-run", *ann)[1]
    assert preview.startswith(f"{len(listed)} audits")
    assert run("bulk", "take_back", "--state", "done", *ann)[1].strip() == f"{len(listed)} changed"
    assert run("audits", "--verdict", "unrelated", "--count")[1].strip() == "0"


def test_the_desk_from_the_command_line(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """A queue by rule, bulk with a preview, the next audit, verdict, history, undo; then the blind verdicts as a file."""
    code, out, err = run("queue-create", "refunds", "--reason", "refund_promise", "--order", "severity")
    assert (code, "queue refunds holds" in out) == (0, True), err
    told, put = (
        lines(run("queue-add", "refunds", "--state", "done", "--json", *more)[1])[0]
        for more in (["--dry-run"], [])
    )
    assert told["matched"] == put["matched"] >= put["added"] > 0  # type: ignore[operator]  # JSON
    [queue] = lines(run("queues", "--json")[1])
    assert "refunds" in run("queues")[1]
    [taken] = lines(run("review-next", "refunds", "--as", "ann", "--json")[1])
    audit_id = str(taken["audit"]["audit_id"])  # type: ignore[index]  # JSON
    [given] = lines(
        run("review", audit_id, "--verdict", "confirmed", "--as", "ann", "--comment", "<b>\u202e", "--json")[
            1
        ]
    )
    assert "confirmed" in run("reviews", audit_id)[1]
    assert "taken back" in run("review-undo", str(given["review_id"]), "--as", "ann")[1]
    assert len(lines(run("reviews", audit_id, "--json")[1])) == 2
    for wrong in (
        ["review", audit_id],
        ["review", audit_id, "--verdict", "plausible"],
        ["export", "--verdicts", "--state", "done", "-o", "x"],
    ):
        assert run(*wrong)[0] == 2, wrong
    assert run("review-next", "nothing")[0] == 4
    assert queue["name"] == "refunds"
    file = tmp_path / "verdicts.jsonl"
    assert run("export", "--verdicts", "-o", str(file), "--json")[0] == 0
    assert file.read_text() == ""
    with Service(served.url) as service:
        made = service.make_review_queue("by hand", by_hand=True, blind=True)
        assert service.put_into_review_queue(made.queue_id, severity="high").added > 0
        assert len(list(service.review_items(made.queue_id))) == service.review_queues()[0].open
        assert service.next_review_item(made.queue_id, reviewer="ann") is not None


def test_a_group_of_outputs(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """Asked by audits and by a file, with acceptable answers; shown with its outputs; what cannot be one question ends with 2."""
    ids = [str(one) for one in served.story.audit_ids[:2]]
    against = tmp_path / "fine.jsonl"
    against.write_text(json.dumps({"prompt": "May I?", "completion": "Within 30 days."}) + "\n", "utf-8")
    code, out, err = run("group", *ids, "--name", "refunds", "--against", str(against))
    assert code == 0, err
    assert "Group of 2 outputs: audit" in out
    (again,) = lines(run("group", *ids, "--name", "refunds", "--against", str(against), "--json")[1])
    assert again["status"] == "duplicate"
    code, out, _ = run("show", str(again["audit_id"]))
    assert code == 0
    assert "2 outputs as one question, against 1 acceptable answer" in out
    assert f"part of group {again['audit_id']}" in run("show", ids[0])[1]
    flagged = tmp_path / "flagged.jsonl"
    flagged.write_text(json.dumps({"prompt": "a", "completion": "b", "model": MODEL}) + "\n", "utf-8")
    assert "Group of 3 outputs" in run("group", *ids, "--input", str(flagged))[1]
    assert run("group")[0] == 2
    assert run("group", "999999")[0] == 4
    flagged.write_text("{", "utf-8")
    code, _, err = run("group", "--input", str(flagged))
    assert (code, "flagged.jsonl, line 1: malformed JSON" in err) == (2, True)


def test_fix_lists_from_the_command_line(run: RunCommand, served: Served, tmp_path: Path) -> None:
    """Culprits, a list, rows by number, of culprits and of a source, the rows as a file, the corpus without them, a what-if."""
    found = lines(run("culprits", "--reason", "refund_promise", "--json")[1])
    assert "strength" in run("culprits")[1]
    assert run("fix-list-create", "refunds", "--as", "ann", "--note", "<b>\u202e")[0] == 0
    number = str(found[0]["training_example_id"])
    told = run("fix-list-add", "refunds", "--row", number, "--as", "ann", "--why", "no receipt")
    assert "1 training examples, 1 changed" in told[1], told[2]
    dry = run(
        "fix-list-add",
        "1",
        "--culprits",
        "--reason",
        "refund_promise",
        "--most",
        "2",
        "--dry-run",
        "--as",
        "ann",
    )
    assert "2 training examples, 0 changed" in dry[1], dry[2]
    assert run("fix-list-add", "1", "--whole-source", "policies", "--action", "keep", "--as", "ann")[0] == 0
    assert "no receipt" in run("fix-list-rows", "refunds")[1]
    assert "refunds" in run("fix-lists")[1]
    rows = tmp_path / "rows.jsonl"
    assert run("fix-list-rows", "refunds", "--action", "remove", "-o", str(rows))[0] == 0
    [removed] = lines(rows.read_text(encoding="utf-8"))
    corpus, cleaned = tmp_path / "corpus.jsonl", tmp_path / "cleaned.jsonl"
    gone = {"id": removed["example_id"], "prompt": removed["prompt"], "completion": removed["completion"]}
    corpus.write_text(
        json.dumps({"id": "other", "prompt": "Q", "completion": "A"}) + "\n" + json.dumps(gone) + "\n"
    )
    assert (
        run("fix-list-clean", "refunds", "--corpus", str(corpus), "-o", str(cleaned))[0] == 2
    )  # the story's hashes are not those of its texts
    assert not cleaned.exists()
    asked = lines(run("what-if", "refunds", "--most", "3", "--json")[1])
    assert [(one["outputs"], one["state"], one["rows"]) for one in asked] == [(3, "pending", 1)]
    for wrong in (
        ["fix-list-add", "refunds"],
        ["fix-list-add", "refunds", "--row", "1", "--state", "done"],
        ["fix-list-add", "refunds", "--row", "1", "--culprits"],
    ):
        assert run(*wrong, "--as", "ann")[0] == 2, wrong
    assert run("fix-list-rows", "nothing")[0] == 4
    with Service(served.url) as service:
        [one] = service.fix_lists()
        assert [row.training_example_id for row in service.fix_rows(one.list_id, action="remove")] == [
            int(number)
        ]
        assert len(list(service.fix_rows(one.list_id))) == one.remove + one.keep > 7  # more than a page
        assert service.source("vendor_batch_07").blame.first_citations > 0
        assert {
            output.z for output in service.what_if_outputs(service.what_ifs(one.list_id)[0].what_if_id)
        } == {None}
        assert service.close_fix_list(one.list_id, reviewer="ann").closed_at is not None
        assert service.fix_history(one.list_id)[0].event.value == "closed"


def test_findings_from_the_command_line(run: RunCommand, served: Served) -> None:
    """The list, one of them, a title, a merge and its undoing, a split, a question, and the outputs by the filter; the client does the same."""
    group_story(served.database)
    first, second = (int(str(one["finding_id"])) for one in lines(run("findings", "--json")[1]))
    assert len(lines(run("findings", "--limit", "1", "--json")[1])) == 1
    one, other = str(first), str(second)
    assert run("finding-rename", one, "\u202eours", "--as", "ann")[1].startswith(
        f"finding {one}: \\u202eours"
    )
    assert "first citations from" in run("findings")[1]
    assert f"finding {one}: \\u202eours" in run("finding-merge", other, one, "--as", "ann")[1]
    told = run("finding", one)[1]
    assert f"Finding {other} went into it" in told
    assert "ann: finding" in told
    assert run("finding-take-out", other, "--as", "ann")[0] == 0
    audits = [str(row["audit_id"]) for row in lines(run("audits", "--finding", one, "--json")[1])]
    split = lines(run("finding-split", one, *audits[:2], "--title", "two", "--as", "ann", "--json")[1])
    assert (split[0]["title"], split[0]["outputs"]) == ("two", 2)
    assert "as one question: audit" in run("finding-ask", one)[1]
    assert run("finding", "999")[0] == 4
    assert run("finding-merge", one, one, "--as", "ann")[0] == 2
    with Service(served.url) as service:
        assert {found.finding_id for found in service.findings()} == {first, second, split[0]["finding_id"]}
        assert service.merge_finding(int(str(split[0]["finding_id"])), first, reviewer="ann").outputs == len(
            audits
        )
        assert service.ask_finding(first).status in {"accepted", "duplicate"}
        assert len(list(service.audits(finding=first))) == len(audits)
