"""What the commands that start the service's processes have in common: which database, and an end that ends every process."""

import argparse
import signal
import sys

from benchmarks.program import command


def service_command(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the option of the database. From now on SIGTERM ends this process as an error does, so that every process ends with it."""
    parser = command(doc, threads=1)
    parser.add_argument(
        "--engine-db",
        choices=["sqlite", "postgresql"],
        default="sqlite",
        help="database (default: %(default)s)",
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return parser
