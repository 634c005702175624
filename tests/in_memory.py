"""Where the files of the tests lie: in memory, where there is room.

A test that uses PostgreSQL copies a database of seven hundred files and deletes it again. In memory this is ten to thirty times as fast as on a disk.
"""

import os
import tempfile
from pathlib import Path

_FOLDER = Path("/dev/shm")
#: Bytes that must be free there, and in memory; a whole run takes less than a third of them.
_ROOM = 6 << 30


def use_memory() -> None:
    """Make the folder in memory the one for temporary files, of this process and its children; a `TMPDIR` that somebody set stays."""
    if "TMPDIR" not in os.environ and _has_room():
        os.environ["TMPDIR"] = str(_FOLDER)
        tempfile.tempdir = None  # it may have been asked for already


def _has_room() -> bool:
    try:
        there = os.statvfs(_FOLDER)
        memory = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        available = int(memory["MemAvailable"].split()[0]) << 10
    except (OSError, KeyError, ValueError):
        return False
    # The programs of the PostgreSQL wheel are copied there where another user cannot read the environment.
    may_run = not there.f_flag & os.ST_NOEXEC
    return os.access(_FOLDER, os.W_OK) and may_run and min(available, there.f_bavail * there.f_frsize) > _ROOM
