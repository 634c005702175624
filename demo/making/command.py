"""What the commands that make the demo do alike: options, threads, progress on the error stream, one result, one line for a mistake."""

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.making.story_grammar import GrammarError
from scripts.smollm2 import BaseModelError, default_cache
from wherefrom.errors import WherefromError

#: What ends a command with one line: no model, no file, sentences that do not fit together.
MISTAKES = (BaseModelError, GrammarError, FileNotFoundError, WherefromError)


@dataclass(frozen=True)
class Outcome:
    """What a command ends with."""

    #: Printed as it is, or as one line of JSON.
    result: object
    #: 1 where what was made, or looked at, is not good enough.
    exit_code: int = 0

    @property
    def text(self) -> str:
        """The result as it is printed."""
        return self.result if isinstance(self.result, str) else json.dumps(self.result)


def command(doc: str | None, *, threads: int | None = None) -> argparse.ArgumentParser:
    """A parser with a module's text as its help.

    Args:
        doc: the text.
        threads: processor threads of torch where the command has the option `--threads`; None leaves the option out.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if threads is not None:
        words = "processor threads; 1 if the machine is busy (default: %(default)s)"
        parser.add_argument("--threads", type=int, default=threads, help=words)
    return parser


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Add `--cache`, the folder where the base model is kept."""
    words = "folder of the base model (default: $XDG_CACHE_HOME/wherefrom)"
    parser.add_argument("--cache", type=Path, default=default_cache(), help=words)


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], Outcome],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a command and return its exit code; a mistake is one line and exit code 2."""
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        outcome = work(arguments)
    except MISTAKES as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(outcome.text + "\n")
    return outcome.exit_code
