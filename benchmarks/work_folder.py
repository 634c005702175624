"""Work folders: what is finished lies in files, and a stopped benchmark goes on where it was."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.program import report
from wherefrom.atomic import atomic_file, write_text
from wherefrom.attribution.ranking_metrics import Matrix
from wherefrom.errors import ConfigurationError


def claim_folder(folder: Path, mark: str, sha256: str, *, holds: str) -> None:
    """Make a folder, or check that what is in it came of the same inputs.

    Args:
        folder: The folder.
        mark: Name of the file in it that holds the hash.
        sha256: Hash of all that decides the numbers.
        holds: What the folder has where the hashes differ, for the message.

    Raises:
        ConfigurationError: it belongs to other inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / mark
    if not file.exists():
        write_text(file, sha256)
    if file.read_text(encoding="utf-8") != sha256:
        raise ConfigurationError(f"{folder} holds {holds}; choose another --work folder")


def kept_scores(folder: Path, makers: Mapping[str, Callable[[], Mapping[str, Matrix]]]) -> dict[str, Matrix]:
    """Scores `[Q, N]` by method; what has a file in the folder is read.

    Args:
        folder: where `scores-NAME.npz` lies for each maker that is finished.
        makers: by name, what gives the scores of one or more methods.
    """
    found: dict[str, Matrix] = {}
    for name, make in makers.items():
        file = folder / f"scores-{name}.npz"
        if not file.is_file():
            save_arrays(file, {key: value.astype(np.float32) for key, value in make().items()})
            report([f"scored: {name}"])
        with np.load(file, allow_pickle=False) as stored:
            found |= {key: stored[key] for key in stored.files}
    return found


def save_arrays(file: Path, arrays: dict[str, Any]) -> None:
    """Write a `.npz` file, whole or not at all."""
    with atomic_file(file) as unfinished, unfinished.open("wb") as target:
        np.savez_compressed(target, **arrays)
