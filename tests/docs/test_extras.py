"""The extras of pyproject.toml bring what they are for."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Our own packages, run from the checkout.
OWN_PACKAGES = {"benchmarks", "db", "demo", "scripts", "tasks", "tests", "web", "wherefrom", "worker"}


def plain(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def brought_by(extra: str) -> set[str]:
    """Distributions that an extra asks for itself or through other extras, and those of the base install."""
    found = set()
    for line in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        (name, listed), *_ = re.findall(r"^([\w.-]+)(?:\[([^]]*)\])?", line)
        if name == PROJECT["name"]:
            found |= {one for other in listed.split(",") for one in brought_by(other.strip())}
        else:
            found.add(plain(name))
    return found


def imported(folder: str) -> set[str]:
    """Top-level names that the modules of a folder import from elsewhere."""
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                found |= {one.name.split(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - OWN_PACKAGES - set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("folder", "extra"), [("tests", "dev"), ("worker", "dev"), ("web", "service"), ("db", "service")]
)
def test_an_extra_brings_what_is_imported(folder, extra):
    """Nothing is imported that is there only because something else needs it."""
    distributions = packages_distributions()
    wanted = {name: {plain(one) for one in distributions.get(name, [name])} for name in imported(folder)}
    missing = sorted(name for name, either in wanted.items() if not either & brought_by(extra))
    assert missing == []
