"""The frame of the commands that make the demo: one result, an exit code, one line for a mistake."""

import argparse
import json
import runpy
from pathlib import Path

import pytest

from demo.making.command import Outcome, add_cache, command, run
from scripts.jsonl import rows_of, write_rows
from wherefrom.errors import ConfigurationError, InvalidRecord


def test_the_result_is_printed_and_its_code_returned(capsys):
    """Text as it is, anything else as one line of JSON."""
    parser = command("text", threads=2)
    add_cache(parser)
    seen: list[argparse.Namespace] = []

    def work(arguments: argparse.Namespace) -> Outcome:
        seen.append(arguments)
        return Outcome({"flagged": 3}, exit_code=1)

    assert run(parser, work, ["--cache", "somewhere"]) == 1
    assert json.loads(capsys.readouterr().out) == {"flagged": 3}
    assert (seen[0].threads, seen[0].cache) == (2, Path("somewhere"))
    assert run(parser, lambda _: Outcome("done"), []) == 0
    assert capsys.readouterr().out == "done\n"


def test_a_mistake_is_one_line(capsys):
    """Exit code 2, no traceback; a bug keeps its own."""

    def refuse(_: argparse.Namespace) -> Outcome:
        raise ConfigurationError("no such file")

    assert run(command("text"), refuse, []) == 2
    assert capsys.readouterr().err == "error: no such file\n"
    with pytest.raises(ZeroDivisionError):
        run(command("text"), lambda _: Outcome(1 // 0), [])


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", ["corpus_report", "make_story", "make_tiny", "story_check", "train_adapter"])
def test_every_command_explains_itself(name, monkeypatch, capsys):
    """`python -m demo.making.NAME --help` ends well."""
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"demo.making.{name}", run_name="__main__")
    assert ended.value.code == 0
    assert "default: " in capsys.readouterr().out


def test_rows_are_read_as_they_were_written(tmp_path):
    """Letters stay letters; a bad line is named, and so is the option of a missing file."""
    rows = [{"text": "größer"}, {"text": "\u4f60"}]
    file = write_rows(tmp_path / "new" / "rows.jsonl", rows)
    assert rows_of(file) == rows
    assert "größer" in file.read_text("utf-8")
    file.write_text('{"a": 1}\nnothing\n', "utf-8")
    with pytest.raises(InvalidRecord, match="line 2"):
        rows_of(file)
    with pytest.raises(ConfigurationError, match="no such file; --data names it"):
        rows_of(tmp_path / "absent.jsonl", option="--data")
