"""The producers of a storm, one process each: flagged outputs over the stream, HTTP, the client's spool and the command line.

    python -m MODULE NAME FOLDER COUNT

A producer sends what the file `allowed` of its folder permits, and writes the number of every output that was acknowledged to its journal, with the time.
When it is killed and started again it goes on behind the last number there, so it may send something twice and never leaves anything out.
It ends with code 0 when all is acknowledged.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import redis

from benchmarks.chaos.outputs import CLI, FLAGGED, HTTP, SPOOL, STREAM, kind_of, record
from wherefrom.client import Client
from wherefrom.client.sender import SendingOptions
from wherefrom.messages import RECORD_FIELD
from wherefrom.settings import Settings, load_settings

#: Outputs that are sent at once.
BATCH = {STREAM: 1, HTTP: 4, SPOOL: 1, CLI: 200}
#: Sends outputs until they are acknowledged; the wall time at which the try that succeeded began.
Send = Callable[[Sequence[int]], float]
_PAUSE_S = 0.05
_REDIS_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Journal:
    """What was acknowledged to a producer."""

    file: Path

    def add(self, numbers: Sequence[int], sent_at: float) -> None:
        """Write numbers down with the wall time at which they were sent; in the file when this returns, whatever becomes of the process."""
        lines = "".join(f"{number} {sent_at:.6f}\n" for number in numbers)
        with self.file.open("ab") as target:
            target.write(lines.encode())

    def read(self) -> dict[int, float]:
        """Numbers and moments of wall time; a line that was cut off is none."""
        if not self.file.exists():
            return {}
        found = {}
        for line in self.file.read_text(encoding="ascii").splitlines():
            number, _, moment = line.partition(" ")
            if moment.count(".") == 1 and not moment.endswith("."):
                found[int(number)] = float(moment)
        return found


def batches(folder: Path, journal: Journal, *, count: int, size: int) -> Iterator[list[int]]:
    """Numbers to send, in order, as far as they are allowed at the moment."""
    following = max(journal.read(), default=-1) + 1
    while following < count:
        allowed = int(count * float((folder / "allowed").read_text(encoding="ascii")) + 0.5)
        last = min(count, following + size)
        if last > allowed:
            time.sleep(_PAUSE_S)
            continue
        yield list(range(following, last))
        following = last


def send_over_stream(name: str, settings: Settings) -> Send:
    """XADD until Redis answers."""
    client = redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        socket_timeout=_REDIS_TIMEOUT_S,
        socket_connect_timeout=_REDIS_TIMEOUT_S,
    )

    def send(numbers: Sequence[int]) -> float:
        tries = [
            partial(client.xadd, FLAGGED, {RECORD_FIELD: json.dumps(record(name, number))})
            for number in numbers
        ]
        return min(map(_until_done, tries))

    return send


def send_over_http(name: str, settings: Settings) -> Send:
    """POST until the answer is 202."""
    client = httpx.Client(base_url=settings.service_url, timeout=10.0)

    def send(numbers: Sequence[int]) -> float:
        body = {"records": [record(name, number) for number in numbers]}
        return _until_done(lambda: client.post("/v1/flagged", json=body).raise_for_status())

    return send


def send_by_command(name: str, settings: Settings, folder: Path) -> Send:
    """`wherefrom flag FILE` until its exit code is 0."""
    file = folder / f"{name}.jsonl"

    def send(numbers: Sequence[int]) -> float:
        file.write_text(
            "".join(f"{json.dumps(record(name, number))}\n" for number in numbers), encoding="utf-8"
        )
        start = [sys.executable, "-c", "from wherefrom.cli import main; main()", "flag", str(file)]
        command = [*start, "--wait-s", "60", "--json", "--url", settings.service_url]
        return _until_done(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL))

    return send


def _until_done(send: Callable[[], object]) -> float:
    """Call it until it raises none of the errors by which a service says that it is away; when the try that succeeded began."""
    while True:
        began = time.time()
        try:
            send()
        except (redis.RedisError, httpx.HTTPError, OSError, subprocess.CalledProcessError):
            time.sleep(_PAUSE_S)
        else:
            return began


def main() -> None:
    """Send everything."""
    name, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    kind, settings = kind_of(name), load_settings()
    journal = Journal(folder / f"{name}.journal")
    todo = batches(folder, journal, count=count, size=BATCH[kind])
    if kind == SPOOL:
        _spool(name, todo, journal, settings)
        return
    senders = {STREAM: send_over_stream, HTTP: send_over_http}
    send = senders[kind](name, settings) if kind in senders else send_by_command(name, settings, folder)
    for numbers in todo:
        journal.add(numbers, send(numbers))


def _spool(name: str, todo: Iterator[list[int]], journal: Journal, settings: Settings) -> None:
    """Flag into the spool, which is on disk when that returns, and wait for it to empty in the end."""
    options = SendingOptions(backoff_base_s=0.1, backoff_cap_s=1.0)
    with Client(
        settings.service_url, spool_path=journal.file.with_suffix(".spool"), sending=options
    ) as client:
        for numbers in todo:
            for number in numbers:
                client.flag(record(name, number))
            journal.add(numbers, time.time())
        while client.flush(5.0):
            pass


if __name__ == "__main__":
    main()
