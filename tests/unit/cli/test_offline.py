"""The offline commands: what they write, what they end with, and that a user's mistake is never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.tiny import (
    TINY_MODEL,
    TINY_ROWS,
    opened,
    quiet,
    shared_bundle,
    shared_micro_model,
    tiny_queries,
    tiny_rows,
    write_jsonl,
)
from tests.unit.cli.conftest import Run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.offline import exact_scores, prepare_all, read_queries, signals_of_all
from wherefrom.records import Attribution

RunCommand = Callable[..., Run]


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    """Four flagged outputs."""
    return write_jsonl(tmp_path / "queries.jsonl", tiny_queries(4))


def attribute(run: RunCommand, queries: Path, *more: str, bundle: Path | None = None) -> Run:
    """`wherefrom attribute` with the tiny bundle."""
    return run(
        "attribute",
        "--bundle",
        str(bundle or shared_bundle()),
        "--model",
        str(TINY_MODEL),
        "--input",
        str(queries),
        *more,
    )


def build(run: RunCommand, corpus: Path, out: Path, *more: str) -> Run:
    """`wherefrom build` with the micro model."""
    return run(
        "build", "--model", str(shared_micro_model()), "--corpus", str(corpus), "--out", str(out), *more
    )


def test_build_and_verify(run: RunCommand, tmp_path: Path) -> None:
    """A bundle from the command line, as JSON and as text; `bundle verify` finds it intact."""
    corpus = write_jsonl(tmp_path / "c.jsonl", [*tiny_rows(12), "{"])
    out = tmp_path / "bundle"
    refused = build(run, corpus, out)
    assert refused.code == 2
    assert "error[invalid_record]" in refused.err
    assert "c.jsonl, line 13: malformed JSON" in refused.err
    done = build(run, corpus, out, "--skip-bad", "--json", "--model-name", "m@1", "--candidates", "5")
    assert done.code == 0
    printed = json.loads(done.out)
    assert (printed["examples"], printed["skipped"], printed["path"]) == (12, 1, str(out))
    shown = run("bundle", "verify", str(out), "--json")
    assert (shown.code, json.loads(shown.out)) == (0, {"name": printed["name"], "files": 27, "intact": True})
    assert f"Bundle {printed['name']} is intact: 27 files checked." in run("bundle", "verify", str(out)).out
    again = build(run, corpus, out, "--skip-bad")
    assert again.code == 2
    assert "already exists" in again.err


def test_build_says_what_it_made(run: RunCommand, tmp_path: Path) -> None:
    """Without --json sentences on stdout, with the next command, and progress on stderr."""
    done = build(
        run, write_jsonl(tmp_path / "c.jsonl", tiny_rows(12)), tmp_path / "bundle", "--form", "activation"
    )
    assert done.code == 0
    made = read_manifest(tmp_path / "bundle")
    for part in (
        f"Built bundle {made.name} in {tmp_path / 'bundle'}.",
        f"12 training examples; 0 bad rows skipped, 0 cut at {made.parameters.max_tokens:,} tokens.",
        "form is activation",
        "of the model",
        f"add-bundle {tmp_path / 'bundle'}",
    ):
        assert part in " ".join(done.out.split())
    assert "read signals (tokens)" in done.err


def test_build_tells_how_the_corpus_was_read(run: RunCommand, tmp_path: Path) -> None:
    """Format, split and what was left out, in one line each before the work; the manifest keeps it."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    chats = [
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "gpt", "value": f"answer {row}", "weight": row % 2},
            ]
        }
        for row in range(8)
    ]
    write_jsonl(folder / "train.jsonl", chats)
    write_jsonl(folder / "test.jsonl", tiny_rows(3))
    done = build(run, folder, tmp_path / "bundle")
    assert done.code == 0, done.err
    assert "Read 8 rows as ShareGPT conversations." in done.err
    assert "left alone: `test` (1 file)" in done.err
    assert "4 rows left out: none of their turns was trained on." in done.err
    reading = read_manifest(tmp_path / "bundle").corpus.reading
    assert reading is not None
    assert (reading.formats, reading.left_out, reading.untrained_rows) == (
        {"ShareGPT conversations": 8},
        {"by `weight`": 4},
        4,
    )
    printed = build(run, folder, tmp_path / "other", "--split", "test", "--format", "chat", "--json")
    assert json.loads(printed.out)["reading"] == {
        "turns": "all",
        "format": "chat",
        "split": "test",
        "formats": {"chat messages (OpenAI)": 3},
        "explained_turns": 3,
        "left_out": {},
        "untrained_rows": 0,
    }
    refused = build(run, folder, tmp_path / "third", "--format", "alpaca")
    assert refused.code == 2
    assert "line 1: not a row of the format alpaca" in refused.err


def test_citations_and_scores(run: RunCommand, queries: Path, tmp_path: Path) -> None:
    """Citations as JSONL; scores as float32 [Q, N] in corpus order, equal to the exact scores and to the citations' influence."""
    output, scores = tmp_path / "citations.jsonl", tmp_path / "scores.npy"
    done = attribute(
        run,
        queries,
        "--output",
        str(output),
        "--scores",
        str(scores),
        "--top-k",
        "4",
        "--opponents",
        "2",
        "--json",
    )
    assert done.code == 0, done.err
    assert json.loads(done.out) == {
        "queries": 4,
        "skipped": 0,
        "rejected": [],
        "bundle": opened().manifest.name,
    }
    found = [Attribution.model_validate_json(line) for line in output.read_text().splitlines()]
    assert [one.key for one in found] == [row["id"] for row in tiny_queries(4)]
    written = np.load(scores)
    assert (written.dtype, written.shape) == (np.float32, (4, TINY_ROWS))
    attributor = LanguageAttributor(opened())
    prepared = prepare_all(attributor, read_queries(queries)[0], max_tokens=1024, over_long="truncate")
    expected = exact_scores(opened(), signals_of_all(attributor, prepared), quiet)
    np.testing.assert_allclose(written, expected, atol=1e-5)
    for index, one in enumerate(found):
        assert [citation.rank for citation in one.citations] == [1, 2, 3, 4, -1, -2]
        for citation in one.citations:
            assert citation.influence_score == pytest.approx(
                float(written[index, citation.example.row]), abs=1e-4
            )
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "citations.jsonl",
        "queries.jsonl",
        "scores.npy",
    ]


def test_queries_without_ids_and_with_bad_lines(run: RunCommand, tmp_path: Path) -> None:
    """A bad line stops everything, or is left out and counted."""
    queries = write_jsonl(tmp_path / "q.jsonl", [{"prompt": "p", "completion": "c"}, {"prompt": "p"}])
    output = tmp_path / "out.jsonl"
    refused = attribute(run, queries, "--output", str(output))
    assert refused.code == 2
    assert "q.jsonl, line 2: field `completion` must be a string, it is missing" in refused.err
    assert not output.exists()
    done = attribute(run, queries, "--output", str(output), "--skip-bad")
    assert done.code == 0
    assert "Attributed 1 query by bundle" in done.out
    assert "; 1 bad line skipped, 0 queries rejected." in done.out
    assert f"Citations: {output}" in done.out


def test_queries_that_cannot_become_tokens(run: RunCommand, tmp_path: Path) -> None:
    """An over-long query is rejected alone; what fails for another reason stops everything, or is rejected with --skip-bad."""
    good, foreign = tiny_queries(2)
    long = {**good, "id": "long", "completion": "word " * 300}
    foreign = {**foreign, "id": "foreign", "token_ids": [10**6]}
    output = tmp_path / "out.jsonl"
    limits = ["--output", str(output), "--max-tokens", "200", "--over-long", "reject"]
    done = attribute(run, write_jsonl(tmp_path / "q.jsonl", [long, good]), *limits)
    assert done.code == 0, done.err
    assert "rejected long: query long: " in done.err
    assert "[output_too_long]" in done.err
    assert "Attributed 1 query by bundle" in done.out
    assert "; 0 bad lines skipped, 1 query rejected." in done.out
    queries = write_jsonl(tmp_path / "q.jsonl", [long, foreign, good])
    assert "error[invalid_record]: query foreign: token id 1000000" in attribute(run, queries, *limits).err
    done = attribute(run, queries, *limits, "--skip-bad", "--json")
    printed = json.loads(done.out)
    assert [(one["key"], one["code"]) for one in printed["rejected"]] == [
        ("long", "output_too_long"),
        ("foreign", "invalid_record"),
    ]
    found = [Attribution.model_validate_json(line) for line in output.read_text().splitlines()]
    assert [one.key for one in found] == [good["id"]]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ([], "nothing to write: give --output, --scores or both"),
        (["--output", "x", "--max-tokens", "12", "--over-long", "reject"], "error[output_too_long]"),
        (["--output", "x", "--max-tokens", "3"], "Invalid value for '--max-tokens'"),
        (["--output", "x", "--over-long", "explode"], "Invalid value for '--over-long'"),
    ],
)
def test_options_that_cannot_be(
    run: RunCommand,
    queries: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    more: list[str],
    problem: str,
) -> None:
    """Exit code 2 and one line; nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = attribute(run, queries, *more)
    assert done.code == 2
    assert problem in done.err
    assert not (tmp_path / "x").exists()


def test_wrong_folders(run: RunCommand, queries: Path, tmp_path: Path) -> None:
    """No bundle, no model, the wrong model, no corpus: one line each, with the error's code."""
    output = ("--output", str(tmp_path / "out.jsonl"))
    wrong = {
        "unknown_bundle": attribute(run, queries, *output, bundle=tmp_path / "away"),
        "unusable_model": run(
            "build", "--model", "away", "--corpus", str(queries), "--out", str(tmp_path / "b")
        ),
        "bundle_mismatch": run(
            "attribute",
            "--bundle",
            str(shared_bundle()),
            "--model",
            str(shared_micro_model()),
            "--input",
            str(queries),
            *output,
        ),
        "invalid_record": build(run, tmp_path / "away.jsonl", tmp_path / "b"),
    }
    for code, done in wrong.items():
        assert done.code == 2, code
        assert done.err.splitlines()[-1].startswith(f"error[{code}]: "), done.err
        assert "Traceback" not in done.err
        assert done.out == ""


@pytest.mark.parametrize("option", ["--output", "--scores"])
def test_place_that_cannot_be_written(run: RunCommand, queries: Path, tmp_path: Path, option: str) -> None:
    """A missing folder is told in one line, before the work is done rather than after it."""
    done = attribute(run, queries, option, str(tmp_path / "away" / "file"))
    assert done.code == 2
    assert "away" in done.err
    folder = attribute(run, queries, option, str(tmp_path))
    assert folder.code == 2
    assert "is a folder; name a file in it" in folder.err.replace("\n", " ")


def test_brackets_in_a_path(run: RunCommand, tmp_path: Path) -> None:
    """A path is shown as it is."""
    done = build(run, write_jsonl(tmp_path / "c.jsonl", tiny_rows(3)), tmp_path / "a[bold]b")
    assert "a[bold]b" in done.out.replace("\n", "")


def test_help(run: RunCommand) -> None:
    """Each offline command explains its options and gives an example."""
    for command in (["build"], ["attribute"], ["bundle", "verify"]):
        shown = run(*command, "--help")
        assert shown.code == 0
        assert "Example: wherefrom" in " ".join(shown.out.split())


def test_a_group_is_one_question(run: RunCommand, queries: Path, tmp_path: Path) -> None:
    """All outputs of a file: one line and one row of scores; without a file the citations and each output's own scores are printed."""
    output, scores = tmp_path / "out.jsonl", tmp_path / "scores.npy"
    done = attribute(
        run, queries, "--group", "--output", str(output), "--scores", str(scores), "--top-k", "3"
    )
    assert done.code == 0, done.err
    assert "Attributed 1 group of 4 outputs" in done.out
    (answer,) = [Attribution.model_validate_json(line) for line in output.read_text().splitlines()]
    assert (answer.key, len(answer.members), answer.against) == ("queries", 4, 0)
    assert all(len(one.member_influence) == 4 for one in answer.citations)
    values = np.load(scores)
    assert values.shape == (1, TINY_ROWS)
    first = answer.citations[0]
    assert first.influence_score == pytest.approx(values[0, first.example.row], abs=1e-4)
    printed = attribute(run, queries, "--group", "--top-k", "2", "--opponents", "0")
    assert printed.code == 0, printed.err
    assert "Group queries: 4 outputs" in printed.out
    assert "influence of 2" in printed.out
    assert first.example.example_id in printed.out
    assert answer.members[3].key in printed.out


def test_groups_by_a_field(run: RunCommand, tmp_path: Path) -> None:
    """One question for each value, in the order met; acceptable answers of a value count for it alone, those without one for all."""
    rows = tiny_queries()
    asked = [rows[0] | {"labels": {"topic": "b"}}, rows[1] | {"labels": {"topic": "a"}}]
    asked += [rows[2] | {"labels": {"topic": "b"}}]
    outputs = write_jsonl(tmp_path / "outputs.jsonl", asked)
    fine = {"prompt": "Can I return it?", "completion": "Please ask our support team."}
    against = write_jsonl(
        tmp_path / "fine.jsonl", [fine, fine | {"labels": {"topic": "a"}, "prompt": "How?"}]
    )
    options = ("--group-by", "labels.topic", "--against", str(against), "--json", "--top-k", "1")
    done = attribute(run, outputs, *options)
    assert done.code == 0, done.err
    printed = json.loads(done.out)
    assert (printed["groups"], printed["queries"], printed["skipped"]) == (2, 3, 0)
    shapes = [(one["key"], len(one["members"]), one["against"]) for one in printed["answers"]]
    assert shapes == [("b", 2, 1), ("a", 1, 2)]


def test_groups_that_cannot_be_asked(run: RunCommand, queries: Path, tmp_path: Path) -> None:
    """A missing field by its line, too many outputs, an answer that is an output, and options that do not go together."""
    lacking = write_jsonl(tmp_path / "lacking.jsonl", [*tiny_queries(2), {"prompt": "a", "completion": "b"}])
    refused = attribute(run, lacking, "--group-by", "reason")
    assert (refused.code, "line 3: has no field `reason`" in refused.err) == (2, True)
    skipping = attribute(run, lacking, "--group-by", "reason", "--skip-bad", "--json", "--top-k", "1")
    assert json.loads(skipping.out)["skipped"] == 1
    many = write_jsonl(tmp_path / "many.jsonl", [{"prompt": str(n), "completion": "b"} for n in range(257)])
    assert "group many has 257 outputs; at most 256" in attribute(run, many, "--group").err
    same = attribute(run, queries, "--group", "--against", str(queries))
    assert (same.code, "is the output flag-vendor-refunds-00 itself" in same.err) == (2, True)
    for options, told in (
        (("--group", "--group-by", "reason"), "exclude each other"),
        (("--against", str(queries), "--output", str(tmp_path / "o.jsonl")), "--against needs --group"),
        (("--group", "--important"), "leave it out with --group"),
    ):
        wrong = attribute(run, queries, *options)
        assert (wrong.code, told in wrong.err) == (2, True), wrong.err
