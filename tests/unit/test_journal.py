"""The journal of reads: on the disk before it is promised, whole lines only, and finished when its writer is gone."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.waiting import wait_until
from wherefrom.errors import ReadNotRecorded
from wherefrom.journal import Journal, Line, files_of, new_id, reading

AT = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)


def line(number: int = 0) -> Line:
    """A read of one audit."""
    return Line(new_id(), AT, "text.read", f"audit:{number}", "person:1", {"audits": [number]})


def written(folder: Path) -> list[Line]:
    """All whole lines, in order."""
    found: list[Line] = []
    for file in files_of(folder):
        with reading(file, 0) as part:
            found += part.lines if part else []
    return found


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal that is closed in the end."""
    made = Journal(tmp_path / "trail")
    yield made
    made.close()


def test_a_line_is_in_the_file_when_it_is_promised(journal: Journal, tmp_path: Path) -> None:
    """What was appended reads back the same, from a file that only its owner reads."""
    wanted = [line(number) for number in range(3)]
    for one in wanted:
        journal.append(one).result(10)
    assert written(tmp_path / "trail") == wanted
    [file] = files_of(tmp_path / "trail")
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_lines_are_handed_to_the_disk_before_they_are_promised(tmp_path: Path) -> None:
    """While the disk is busy nothing is promised; what waited meanwhile shares the next `fsync`."""
    busy, calls = threading.Event(), []

    def sync(file: int) -> None:
        calls.append(os.fstat(file).st_size)
        busy.wait(10)

    made = Journal(tmp_path, sync=sync)
    first = made.append(line())
    wait_until(lambda: calls, message="the first line to reach the disk")
    later = [made.append(line(number)) for number in range(50)]
    assert not first.done()
    assert not any(one.done() for one in later)
    busy.set()
    for one in (first, *later):
        one.result(10)
    made.close()
    assert len(calls) == 2
    assert len(written(tmp_path)) == 51


def test_a_full_disk_is_told_and_the_next_line_gets_a_file_of_its_own(tmp_path: Path) -> None:
    """What could not be handed to the disk is taken out again, and nothing is written behind it."""
    full = True

    def sync(_: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")

    made = Journal(tmp_path, sync=sync)
    with pytest.raises(ReadNotRecorded, match="No space left"):
        made.append(line(1)).result(10)
    full = False
    made.append(line(2)).result(10)
    made.close()
    assert [one.subject for one in written(tmp_path)] == ["audit:2"]
    assert len(files_of(tmp_path)) == 2


def test_a_large_file_is_finished_and_a_new_one_begun(tmp_path: Path) -> None:
    """So that what was moved can be removed while the process lives."""
    made = Journal(tmp_path, file_bytes=200)
    for number in range(4):
        made.append(line(number)).result(10)
    finished = []
    for file in files_of(tmp_path):
        with reading(file, 0) as part:
            finished.append(part is not None and part.finished)
    made.close()
    assert len(finished) > 1
    assert all(finished[:-1])
    assert [one.subject for one in written(tmp_path)] == [f"audit:{number}" for number in range(4)]


_WRITER = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from wherefrom.journal import Journal, Line, new_id
made = Journal(Path(sys.argv[1]))
for number in range(10**9):
    made.append(Line(new_id(), datetime.now(UTC), "text.read", f"audit:{number}", "local", {})).result()
    print(number, flush=True)
"""


def test_what_was_promised_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the middle of the writing: every promised line is there, and the file is finished once the process is gone."""
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    promised = [process.stdout.readline() for _ in range(20)]
    [file] = files_of(tmp_path)
    with reading(file, 0) as part:
        assert part is not None
        assert not part.finished
    process.send_signal(signal.SIGKILL)
    promised += process.stdout.readlines()
    process.wait(10)
    process.stdout.close()
    with file.open("ab") as torn:  # as a write that the kill cut off
        torn.write(b'{"id":"half a li')
    with reading(file, 0) as part:
        assert part is not None
        assert part.finished
        assert part.damaged == 0
        subjects = [one.subject for one in part.lines]
    whole = [one.strip() for one in promised if one.endswith("\n")]
    assert subjects[: len(whole)] == [f"audit:{number}" for number in whole]


@pytest.mark.parametrize(
    "damaged", [b"{}\n", b"null\n", b"\xff\xfe\n", b'{"id": 1, "at": "x"}\n', b"\n", b'["a"]\n']
)
def test_a_damaged_line_hides_no_other(tmp_path: Path, damaged: bytes) -> None:
    """It is counted, and the lines around it are read."""
    file = tmp_path / "reads-1-a.jsonl"
    file.write_bytes(line(1).to_bytes() + damaged + line(2).to_bytes())
    with reading(file, 0) as part:
        assert part is not None
        assert [one.subject for one in part.lines] == ["audit:1", "audit:2"]
        assert part.damaged == 1
