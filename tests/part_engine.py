"""An engine that reads parts of a corpus without a model, for tests of builds over many machines: real worker processes use it by the setting `engine`.

What it makes of a part has the files of the real one, and depends on nothing but the part; a pass takes as long as the plan says.
"""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.overlap_engine import OverlapEngine
from wherefrom.attribution.interface import KeepGoing, PartFiles
from wherefrom.errors import BuildMismatch, OutOfMemory, UnusableModel
from wherefrom.settings import Settings

ENGINE = "tests.part_engine:make_engine"
#: Rows of one shard of the parts that this engine is given.
SHARD_ROWS = 128


def make_engine(settings: Settings) -> "PartEngine":
    """The factory that the setting `engine` names."""
    return PartEngine(settings)


class PartEngine(OverlapEngine):
    """Opens plans of the tests: `seconds` of a pass, `model` that must be ``ours``, first rows that `refuse` and `exhaust`."""

    def open_part_reader(self, plan: Mapping[str, Any]) -> "LightPartReader":
        """Look at the plan."""
        if plan.get("model") != "ours":
            raise BuildMismatch("the build was planned with another model")
        return LightPartReader(plan)


class LightPartReader:
    """Makes numbers of the token ids."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan

    def read_part(self, rows: Path, *, first: int, folder: Path, keep_going: KeepGoing) -> PartFiles:
        """One file per shard, and one of moments."""
        if first in self._plan.get("refuse", ()):
            raise UnusableModel(f"training example {first + 1} of the corpus: not finite")
        if first in self._plan.get("exhaust", ()):
            raise OutOfMemory("a batch of 1 training examples did not fit")
        content = rows.read_bytes()
        with np.load(rows, allow_pickle=False) as stored:
            lengths = stored["lengths"]
        threading.Event().wait(self._plan.get("seconds", 0))
        keep_going()
        shards, sums = [], []
        for number in range(-(-len(lengths) // SHARD_ROWS)):
            seed = int.from_bytes(hashlib.sha256(content + bytes([number])).digest()[:8], "big")
            values = np.random.default_rng(seed).standard_normal((4, 1, 3)).astype(np.float32)
            shards.append(folder / f"shard-{number}.npz")
            np.savez(shards[-1], a=values, first=first)
            sums.append(np.einsum("tld,tle->lde", values.astype(np.float64), values.astype(np.float64)))
        moments = folder / "moments.npz"
        np.savez(moments, a=np.stack(sums), b=np.stack(sums), count=np.full(len(sums), 4))
        return PartFiles(tuple(shards), moments)
