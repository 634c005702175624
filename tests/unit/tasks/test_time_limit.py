"""A piece of work that hangs ends its process."""

import signal
import subprocess
import sys

HANGS = """
import re
import threading
from tasks.time_limit import hard_limit
with hard_limit(60):
    pass
with hard_limit(1.5) as begin_anew:  # pieces of work that take longer only together
    for _ in range(4):
        threading.Event().wait(0.5)
        begin_anew()
with hard_limit(0.5):
    re.match(r"(a+)+$", "a" * 64 + "b")  # holds Python's lock for longer than anybody waits
"""


def test_work_that_hangs_without_letting_go_of_python_ends_its_process():
    """SIGALRM, and a traceback of every thread before it, after the limit of the block that hangs."""
    ended = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == -signal.SIGALRM
    assert "Timeout (0:00:00.500000)!" in ended.stderr
    assert "most recent call first" in ended.stderr
