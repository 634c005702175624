"""Nothing in the tree depends on the machine that it was written on; what there is one of stays one."""

import ast
import re
import subprocess
import tokenize
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


#: Who else gives a finished file or folder its name, and why `wherefrom/atomic.py` does not do it for them.
OWN_RENAMES = {
    "benchmarks/overhead.py": "a finished bundle takes the name that its manifest states",
    "scripts/demo_bundle.py": "a finished bundle takes the name that its manifest states",
    "wherefrom/attribution/bundles/card_file.py": "two waiting files take their places in an order",
    "wherefrom/journal.py": "a file that lines are appended to is locked before anybody can find it",
    "worker/sweeper/journal_mover.py": "a damaged file is set aside as it is",
    "wherefrom/attribution/bundles/cache.py": "a copy that is removed or mended gets out of the way first; a card is moved with its manifest",
    "worker/erasure/bundle_deletion.py": "a folder that is deleted gets out of the way first",
    "wherefrom/attribution/bundles/rendering.py": "texts and tokens are put into the bundle that is being built",
}


def _renames(path: Path) -> bool:
    """Whether a module calls `os.replace`, `os.rename`, `Path.replace(one)` or `Path.rename(one)`."""
    calls = [one for one in ast.walk(ast.parse(path.read_bytes())) if isinstance(one, ast.Call)]
    return any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr in {"replace", "rename", "renames"}
        and ((len(call.args) == 1 and not call.keywords) or ast.unparse(call.func.value) == "os")
        for call in calls
    )


def test_there_is_one_writer_of_whole_files():
    """A module that renames its own temporary file forgets the disk, the mode or the leftovers; `wherefrom/atomic.py` does not."""
    packages = ("wherefrom", "worker", "web", "tasks", "db", "scripts", "benchmarks", "demo")
    modules = [
        one for one in tracked_files() if one.suffix == ".py" and one.relative_to(ROOT).parts[0] in packages
    ]
    found = {str(one.relative_to(ROOT)) for one in modules if _renames(one)}
    assert found == {"wherefrom/atomic.py", *OWN_RENAMES}


#: A check that is switched off on a line; and how it is done: with its rule, and the reason behind it.
_SWITCHED_OFF = re.compile(
    r"# ?(?:(?:ruff|flake8): ?)?(?:noqa|type: ?ignore|pyright: ?ignore|mypy: |nosec)", re.IGNORECASE
)
_WITH_REASON = re.compile(
    r"# (?:(?:ruff: )?noqa: [A-Z]+\d+(?:, ?[A-Z]+\d+)*|type: ignore\[[a-z-]+(?:, ?[a-z-]+)*\]) +(?:- |# )\w"
)


def test_a_check_that_is_switched_off_says_why():
    """Every `noqa` and `type: ignore` names its rule and carries its reason on the line."""
    bare = []
    for path in tracked_files():
        if path.suffix != ".py" or not _SWITCHED_OFF.search(path.read_text("utf-8")):
            continue
        with path.open("rb") as file:
            comments = [one for one in tokenize.tokenize(file.readline) if one.type == tokenize.COMMENT]
        bare += [
            f"{path.relative_to(ROOT)}:{one.start[0]}: {one.string}"
            for one in comments
            for part in _SWITCHED_OFF.finditer(one.string)
            if not _WITH_REASON.match(one.string, part.start())
        ]
    assert not bare
