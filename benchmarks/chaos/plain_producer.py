"""The producer of the plain storm: publishes tasks and notes those that Redis took; called as `benchmarks.chaos.producers` is."""

import os
import sys
import time
from pathlib import Path

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from benchmarks.chaos.outputs import key_of, record
from benchmarks.chaos.plain_app import TASK, make_app
from benchmarks.chaos.producers import Journal, batches

_PAUSE_S = 0.05


def main() -> None:
    """Publish everything."""
    name, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    journal, app = Journal(folder / f"{name}.journal"), make_app(os.environ["STORM_REDIS"])
    for numbers in batches(folder, journal, count=count, size=1):
        for number in numbers:
            arguments = (key_of(name, number), record(name, number)["completion"])
            while True:
                try:
                    app.send_task(TASK, arguments, retry=False)
                    break
                except (OperationalError, RedisError, OSError):
                    time.sleep(_PAUSE_S)
        journal.add(numbers, time.time())


if __name__ == "__main__":
    main()
