"""The files that `wherefrom attribute` writes: checked before the work, written whole or not at all after it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wherefrom.atomic import PRIVATE, atomic_file
from wherefrom.errors import ConfigurationError
from wherefrom.records import Attribution
from wherefrom.terminal import say


@dataclass(frozen=True)
class Targets:
    """Where citations and exact scores go; None where they are not wanted."""

    output: Path | None
    scores: Path | None

    def check(self, *, needed: bool) -> None:
        """Refuse what cannot be written before hours of work, not after them.

        Args:
            needed: whether a run without a file would show nothing.

        Raises:
            ConfigurationError: a file cannot be written, or none is named where one is needed.
        """
        given = [file for file in (self.output, self.scores) if file is not None]
        if needed and not given:
            raise ConfigurationError("nothing to write: give --output, --scores or both")
        for file in given:
            if not file.parent.is_dir():
                raise ConfigurationError(f"{file.parent}: folder not found; create it first")
            if file.is_dir():
                raise ConfigurationError(f"{file} is a folder; name a file in it")
            if not os.access(file.parent, os.W_OK | os.X_OK):
                raise ConfigurationError(f"{file}: you may not write to {file.parent}")

    def write_lines(self, found: Sequence[Attribution]) -> None:
        """Write citations, one JSON line per answer, where they are wanted."""
        if self.output is None:
            return
        with (
            atomic_file(self.output, mode=PRIVATE) as unfinished,
            unfinished.open("w", encoding="utf-8") as lines,
        ):
            lines.writelines(one.model_dump_json() + "\n" for one in found)

    def write_scores(self, values: npt.NDArray[np.float32]) -> None:
        """Write exact scores, where they are wanted."""
        if self.scores is None:
            return
        with atomic_file(self.scores, mode=PRIVATE) as unfinished, unfinished.open("wb") as target:
            np.save(target, values)

    def say(self) -> None:
        """Name the files."""
        for what, file in (("Citations", self.output), ("Scores", self.scores)):
            if file is not None:
                say(f"{what}: {file}")
