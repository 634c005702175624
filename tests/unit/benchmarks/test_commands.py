"""Every benchmark is a command with the same frame, and documents name only commands and options that exist."""

import argparse
import json
import re
import runpy
from pathlib import Path

import pytest

from benchmarks.program import command, numbers, run
from wherefrom.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
#: Modules that are run, without their common first part.
COMMANDS = (
    "behaviours",
    "calibration",
    "chaos",
    "counterfactual",
    "deep_bank",
    "deep_bank.citations",
    "deep_bank.full",
    "deep_bank.groups",
    "deep_bank.large",
    "deep_bank.lists",
    "deep_bank.outputs",
    "deep_bank.parts",
    "deep_bank.proxies",
    "deep_bank.signs",
    "deep_bank.train",
    "desk",
    "erasure",
    "findings",
    "gpu",
    "gpu.collecting",
    "gpu.experiments",
    "gpu.story_plan",
    "gpu.story_report",
    "kept_features",
    "measured",
    "opening",
    "output_groups",
    "overhead",
    "overload",
    "pages",
    "peers",
    "peers.deep",
    "plan",
    "queue",
    "safety",
    "scale",
    "shifts",
    "soak",
    "throughput",
    "tiers",
    "tokens",
    "trail",
    "yardstick",
)
#: These write files instead of figures.
MAKERS = {"deep_bank.outputs", "deep_bank.train"}
_NAMED = re.compile(r"python -m benchmarks\.([a-z_.]*[a-z_])((?: (?:\[[^\]]*\]|[^`\s]+))*)")


def named_commands() -> list[tuple[str, str, set[str]]]:
    """File, benchmark and options of each command that the documents or the benchmarks' own texts name."""
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.py")]
    return [
        (str(file.relative_to(ROOT)), name, set(re.findall(r"--[a-z][a-z-]*", words)))
        for file in files
        for name, words in _NAMED.findall(file.read_text("utf-8"))
    ]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_every_benchmark_explains_itself(name, monkeypatch, capsys):
    """`--help` works, begins with the module's text, and holds every option that a document names."""
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in text
    assert ("--json" in text) == (name not in MAKERS)
    named = {option for _, one, options in named_commands() if one == name for option in options}
    assert all(option in text for option in named), named


def test_documents_name_only_commands_that_there_are():
    """A benchmark that moves takes its documents along."""
    unknown = [(file, name) for file, name, _ in named_commands() if name not in COMMANDS]
    assert not unknown
    assert not re.findall(r"python benchmarks/\S+", "".join(map(_text, (ROOT / "docs").rglob("*.md"))))


def _text(file: Path) -> str:
    return file.read_text("utf-8")


def test_the_frame_says_what_it_ran_on_and_ends_with_one_line(monkeypatch, capsys):
    """First the machine, then the table, then the figures with their seconds; the folder is gone afterwards."""
    seen: list[Path] = []

    def work(arguments: argparse.Namespace, folder: Path) -> dict[str, int]:
        assert folder.is_dir()
        seen.append(folder)
        return {"figure": arguments.figure}

    parser = command("text")
    parser.add_argument("--figure", type=int)
    monkeypatch.setattr("sys.argv", ["benchmark", "--figure", "7", "--json"])
    run(parser, work, table=lambda result: [f"figure {result['figure']}"])
    first, *table, last = capsys.readouterr().out.splitlines()
    assert first.startswith("ran on: ")
    assert table == ["figure 7"]
    closing = json.loads(last)
    assert closing["figure"] == 7
    assert {"cores", "commit", "threads"} <= closing["machine"].keys()
    assert closing["seconds"] >= 0
    assert not seen[0].exists()


def test_a_mistake_of_the_user_is_one_line(monkeypatch, capsys):
    """As argparse's own: exit code 2, no traceback."""

    def work(_arguments: argparse.Namespace, _folder: Path) -> dict[str, int]:
        raise ConfigurationError("no such folder")

    monkeypatch.setattr("sys.argv", ["benchmark"])
    with pytest.raises(SystemExit) as ended:
        run(command("text"), work, table=lambda _: [])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: no such folder\n"


def test_numbers_of_an_option():
    """A list of whole numbers; a mistake names the option."""
    assert numbers("1000,20", option="--examples") == [1000, 20]
    with pytest.raises(ConfigurationError, match="--examples '1000,many'"):
        numbers("1000,many", option="--examples")
