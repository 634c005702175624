"""Every setting, metric, error code and Makefile target is documented, and the generated pages are up to date."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import generate_reference
from wherefrom import errors
from wherefrom.metrics import PREFIX, declared_metrics
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def makefile_targets() -> list[str]:
    """The targets that `make help` lists."""
    return re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_setting_is_documented(name):
    """A setting says what it does, and docs/settings.md has a row for its variable."""
    assert Settings.model_fields[name].description, f"wherefrom/settings.py: {name} has no description"
    assert f"| `WHEREFROM_{name.upper()}` |" in (DOCS / "settings.md").read_text("utf-8")


@pytest.mark.parametrize("name", declared_metrics())
def test_metric_is_documented(name):
    """docs/metrics.md has a row for the metric."""
    assert f"| `{PREFIX}{name}` |" in (DOCS / "metrics.md").read_text("utf-8")


@pytest.mark.parametrize("one", generate_reference.error_classes(), ids=lambda one: one.__name__)
def test_error_is_documented(one):
    """An error says when it is raised, and docs/errors.md has a row for its code."""
    assert one.__doc__, f"{one.__name__} has no docstring"
    assert f"| `{one.code}` |" in (DOCS / "errors.md").read_text("utf-8")


def test_error_codes_are_unique():
    """A code names one error."""
    codes = [one.code for one in generate_reference.error_classes()] + list(errors.STORED_CODES)
    assert sorted(codes) == sorted(set(codes))


@pytest.mark.parametrize("target", makefile_targets())
def test_target_is_documented(target):
    """README.md or CONTRIBUTING.md mentions `make TARGET`."""
    readers = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    text = "\n".join(path.read_text("utf-8") for path in readers if path.exists())
    assert re.search(rf"make {re.escape(target)}(?![\w-])", text), f"`make {target}` is in neither file"


def test_every_target_has_a_comment():
    """`make help` lists every phony target."""
    text = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert sorted(phony.group(1).split()) == sorted(makefile_targets())


def test_the_recipe_is_documented():
    """docs/operations.md names every field with its default, and its example is a recipe."""
    page = (DOCS / "operations.md").read_text("utf-8")
    section = page.split("### The recipe")[1].split("\n## ")[0]
    example = re.search(r"```json\n(.*?)```", section, re.DOTALL)
    assert example is not None
    assert Recipe.model_validate_json(example.group(1)).lora is not None
    for name, field in {**Recipe.model_fields, **Lora.model_fields}.items():
        (row,) = [line for line in section.splitlines() if line.startswith("|") and f"`{name}`" in line]
        default = field.get_default(call_default_factory=True)
        shown = json.dumps(default)
        stated = [float(one) for one in re.findall(r"(?<![\w-])\d[\d.]*(?:e-\d+)?", row)]
        parts = default if isinstance(default, tuple) else (default,)
        counted = [one for one in parts if isinstance(one, int | float) and not isinstance(one, bool)]
        assert all(one in stated for one in counted), f"{name}: {shown}"
        assert all(one in row for one in parts if isinstance(one, str)), f"{name}: {shown}"
        if isinstance(default, bool) or not default:
            assert f"`{shown}`" in row or default in stated, f"{name}: {shown}"


def test_generated_pages_are_up_to_date():
    """The pages hold what the code says; `make docs-write` brings them up to date."""
    stale = [
        path.name for path, text in generate_reference.pages().items() if path.read_text("utf-8") != text
    ]
    assert not stale


def test_check_mode_tells_a_stale_page(tmp_path, monkeypatch, capsys):
    """`--check` exits 1, names the page, and writes nothing."""
    monkeypatch.setattr(generate_reference, "_DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate_reference"])
    assert generate_reference.main() == 0
    (tmp_path / "errors.md").write_text("old", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["generate_reference", "--check"])
    assert generate_reference.main() == 1
    assert "docs/errors.md is out of date" in capsys.readouterr().err
    assert (tmp_path / "errors.md").read_text("utf-8") == "old"


def test_make_help_lists_every_target():
    """`make help` is the one place to look for what can be done, and needs no virtual environment."""
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in shown.splitlines()] == makefile_targets()


def test_links_between_documents_lead_somewhere():
    """Every relative link in a Markdown file leads to a file of the repository."""
    documents = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text("utf-8"))
        if not (document.parent / target).exists()
    ]
    assert not broken
