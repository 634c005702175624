"""What the command of every benchmark does alike: its options, what it ran on, lines for people, and one closing JSON line."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from wherefrom.errors import ConfigurationError, WherefromError
from wherefrom.evaluation.material import machine

#: Gets the options and an empty folder that is deleted afterwards; returns the benchmark's figures.
Work = Callable[[argparse.Namespace, Path], dict[str, Any]]
#: The figures as lines for people.
Table = Callable[[dict[str, Any]], list[str]]
#: The figures as the closing JSON line has them.
Closing = Callable[[dict[str, Any]], dict[str, Any]]


def command(doc: str | None, *, threads: int | None = None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks share.

    Args:
        doc: text of the module; its help.
        threads: processor threads of torch where the option is not given; None leaves it to torch.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, default=threads, help="threads of torch (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    return parser


def run(
    parser: argparse.ArgumentParser, work: Work, *, table: Table, closing: Closing | None = None
) -> dict[str, Any]:
    """Say what the benchmark runs on, do its work, print its table, and end with one JSON line where it was asked for.

    A mistake of the user ends with one line and exit code 2, as argparse's own.

    Args:
        parser: made by `command`.
        work: does the work.
        table: tells the figures.
        closing: what the JSON line holds; by default the figures, the seconds and the machine.

    Returns:
        The figures.
    """
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    described = describe()
    report([f"ran on: {described}"])
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = work(arguments, Path(folder))
    except WherefromError as error:
        parser.exit(2, f"error: {error}\n")
    report(table(result))
    if arguments.json:
        everything = {"seconds": time.monotonic() - started} | result | {"machine": described}
        report([json.dumps(everything if closing is None else closing(result))])
    return result


def named(text: str, known: Iterable[str], *, option: str) -> list[str]:
    """The names of a comma-separated list.

    Raises:
        ConfigurationError: one is unknown.
    """
    names, choices = text.split(","), list(known)
    for name in names:
        if name not in choices:
            raise ConfigurationError(f"{option}: {name!r} is unknown; known: {', '.join(choices)}")
    return names


def numbers(text: str, *, option: str) -> list[int]:
    """The whole numbers of a comma-separated list.

    Raises:
        ConfigurationError: one is none.
    """
    try:
        return [int(one) for one in text.split(",")]
    except ValueError as error:
        raise ConfigurationError(
            f"{option} {text!r}: give whole numbers, with commas between them"
        ) from error


def describe() -> dict[str, Any]:
    """Processor, cores, load, Python, main libraries, threads and the commit."""
    return machine() | {"threads": torch.get_num_threads(), "commit": _commit()}


def report(lines: list[str]) -> None:
    """Print lines for people."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
