"""The README's Python runs as it is written."""

import re
import shutil
from pathlib import Path

import pytest

from tests.tiny import build, shared_corpus, shared_micro_model, write_adapter

ROOT = Path(__file__).parents[2]


def python_blocks(page: str, word: str) -> list[str]:
    """The Python blocks of a page that hold a word."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if word in block]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the README's commands leave it: ./model, ./lora and ./bundle."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(shared_micro_model(), folder / "model")
    write_adapter(folder / "lora", folder / "model")
    build(folder / "model", shared_corpus(40), folder / "bundle", adapter=folder / "lora")
    return folder


@pytest.mark.parametrize(
    ("page", "place"),
    [
        (page, place)
        for page in ("README.md", "docs/library.md")
        for place in range(len(python_blocks(page, "open_bundle")))
    ],
)
def test_the_library_as_documented(
    project: Path,
    page: str,
    place: int,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Runs beside the folders that the page names, and prints something."""
    monkeypatch.chdir(project)
    code = compile(python_blocks(page, "open_bundle")[place], page, "exec")
    exec(code, {"__name__": "__main__"})
    assert capsys.readouterr().out.strip()


def test_the_readme_fits_on_a_screen_or_two() -> None:
    """600 words at most; the rest belongs into docs/."""
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 600


def test_the_readme_shows_the_library_in_five_lines() -> None:
    """One block, five lines of code at most."""
    (block,) = python_blocks("README.md", "open_bundle")
    assert len([line for line in block.splitlines() if line.strip()]) <= 5
