"""The wheel holds `wherefrom` and nothing else, with its data files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The names of the files in a freshly built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for package in ("wherefrom", "db", "tasks", "worker", "web", "scripts"):
        for path in (ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                copy = source / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    build = [
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--wheel-dir",
        str(out),
        str(source),
    ]
    made = subprocess.run([sys.executable, "-m", "pip", *build], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_only_our_package_is_in_the_wheel(names):
    """A generic top-level name in a wheel would overwrite another distribution's package without a word."""
    tops = {name.split("/", 1)[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"wherefrom"}


def test_data_files_are_in_the_wheel(names):
    """Type information, the declared metrics and the licence travel with the code."""
    assert {"wherefrom/py.typed", "wherefrom/metrics.yaml"} <= set(names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_every_module_is_in_the_wheel(names):
    """No module is left out for want of an `__init__.py`."""
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "wherefrom").rglob("*.py")}
    assert ours <= set(names)
