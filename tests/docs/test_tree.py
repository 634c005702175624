"""Nothing in the tree depends on the machine that it was written on."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Written in two parts, so that this file does not find itself.
MACHINE_PATHS = tuple(
    start + rest for start, rest in (("/wo", "rk/"), ("/ro", "ot/"), ("/opt/wh", "eels"), ("/opt/py", "pi"))
)


def tracked_files() -> list[Path]:
    """Files that git tracks or would track; all of a tree without git is refused by git itself."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_a_path_of_a_machine():
    """Paths of one machine would break, or tell about, every other."""
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in tracked_files()
        for word in MACHINE_PATHS
        if word.encode() in path.read_bytes()
    ]
    assert not found


def test_committed_files_stay_small():
    """Large files make every clone slow; the adapter of the demo (under 20 MB) is the largest."""
    large = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size}"
        for path in tracked_files()
        if path.stat().st_size > 20_000_000
    ]
    assert not large


def test_the_licence_is_apache_2():
    """The file holds the whole licence, appendix included."""
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
