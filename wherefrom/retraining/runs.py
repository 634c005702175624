"""Retrainings that leave training examples out, kept in a folder so that citations share them and a stopped run goes on.

A run is named by its seed and the set of rows that it leaves out; the empty set is the base run. All runs of one seed see the same
order and batches, so they are the same model until the first batch that holds a left-out row: the base run is trained once per
call and each missing run branches off there, which saves about 1 / (2 epochs) of its steps.

    runs.json                     what the folder belongs to: recipe, base model, corpus
    seed0-base.npz                query losses of a run, by the hash of the query's tokens
    seed0-5f1c....npz             the same, without the rows of which this is the hash
    seed0-base.safetensors        its trained weights, where they are kept: other queries can be measured later
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from wherefrom.atomic import atomic_file, write_json
from wherefrom.attribution.array_files import write_arrays
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.errors import ConfigurationError
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.training import Training, checked_weights, mean_losses

#: Called with the runs done and their number.
RunProgress = Callable[[int, int], None]
#: Rows that a run leaves out, sorted; empty for the base run.
Group = tuple[int, ...]

MARK = "runs.json"


@dataclass(frozen=True)
class RunLosses:
    """Query losses of many runs."""

    #: `[S, G, Q]` float64, nats: seed, left-out group, query, in the order asked for.
    losses: npt.NDArray[np.float64]
    #: `[S, G]` seconds that each run's own training took; the part shared with the base run counts for the base run.
    seconds: npt.NDArray[np.float64]
    #: Runs that were trained now; the others came from the folder.
    trained: int


class RunFolder:
    """Runs of one base model, corpus and recipe."""

    def __init__(
        self,
        folder: Path,
        *,
        language: LanguageModel,
        rows: Sequence[TokenRow],
        recipe: Recipe,
        keep_models: bool = True,
    ) -> None:
        """Open or make the folder.

        Raises:
            ConfigurationError: it holds runs of another base model, corpus or recipe.
        """
        self._folder, self._language, self._rows, self._recipe = folder, language, rows, recipe
        self._keep_models = keep_models
        check_mark(folder / MARK, recipe=recipe, language=language, rows=rows)

    def losses(
        self,
        queries: Sequence[TokenRow],
        groups: Sequence[Iterable[int]],
        *,
        seeds: Sequence[int],
        progress: RunProgress | None = None,
    ) -> RunLosses:
        """Losses of queries under every run, training what the folder lacks.

        Args:
            queries: The queries as tokens.
            groups: Left-out rows of each run; an empty one is the base run.
            seeds: Seeds of the row order.
            progress: Told about each run.

        Raises:
            ConfigurationError: a group names a row that the corpus does not have, or all of them.
            UnusableModel: a training diverged.
        """
        wanted = [self._checked(group) for group in groups]
        keys = [query_key(query) for query in queries]
        total, trained = len(wanted) * len(seeds), 0
        for index, seed in enumerate(seeds):
            missing = [group for group in dict.fromkeys(wanted) if not self._has(seed, group, keys, queries)]
            for count, _ in enumerate(self._train(seed, missing, queries), start=1):
                trained += 1
                if progress is not None:
                    progress(index * len(wanted) + len(wanted) - len(missing) + count, total)
        files = [[_read(self._file(seed, group)) for group in wanted] for seed in seeds]
        return RunLosses(
            losses=np.array([[[one.losses[key] for key in keys] for one in row] for row in files]).reshape(
                len(seeds), len(wanted), len(keys)
            ),
            seconds=np.array([[one.seconds for one in row] for row in files]),
            trained=trained,
        )

    def trained_seeds(self, groups: Sequence[Iterable[int]], *, seeds: Sequence[int]) -> list[int]:
        """Those of the seeds under which every group's run is in the folder."""
        wanted = [self._checked(group) for group in groups]
        return [seed for seed in seeds if all(self._file(seed, group).is_file() for group in wanted)]

    def _checked(self, group: Iterable[int]) -> Group:
        rows = tuple(sorted({int(row) for row in group}))
        if rows and not 0 <= rows[0] <= rows[-1] < len(self._rows):
            raise ConfigurationError(
                f"left-out rows {rows[0]} to {rows[-1]}: the corpus has rows 0 to {len(self._rows) - 1}"
            )
        if len(rows) == len(self._rows):
            raise ConfigurationError(f"all {len(rows)} rows would be left out; nothing would be trained")
        return rows

    def _file(self, seed: int, group: Group) -> Path:
        name = hashlib.sha256(json.dumps(group).encode()).hexdigest()[:16] if group else "base"
        return self._folder / f"seed{seed}-{name}.npz"

    def _has(self, seed: int, group: Group, keys: list[str], queries: Sequence[TokenRow]) -> bool:
        """Whether the run's losses are there; those of new queries are measured with the kept weights."""
        file = self._file(seed, group)
        if not file.is_file():
            return False
        stored = _read(file)
        new = [index for index, key in enumerate(keys) if key not in stored.losses]
        if not new:
            return True
        weights = file.with_suffix(".safetensors")
        if not weights.is_file():
            return False
        model = Training(self._language, self._rows, self._recipe, seed=seed).trained()
        model.load_state_dict(load_file(weights), strict=False)
        found = mean_losses(model, [queries[index] for index in new])
        more = {keys[index]: float(loss) for index, loss in zip(new, found, strict=True)}
        _write(file, _StoredRun(stored.left_out, stored.losses | more, stored.seconds))
        return True

    def _train(self, seed: int, groups: list[Group], queries: Sequence[TokenRow]) -> Iterable[Group]:
        """Train the missing runs of one seed and yield each when its file is written."""
        if not groups:
            return
        base = Training(self._language, self._rows, self._recipe, seed=seed)
        ones = checked_weights(self._rows, None)
        first_steps = {group: _first_step(base.batches, group) for group in groups}
        started = time.monotonic()
        for step in range(max(first_steps.values()) + 1):
            for group in [one for one, first in first_steps.items() if first == step]:
                aside = time.monotonic()
                branch, weights = base.copy() if group else base, ones.clone()
                weights[list(group)] = 0.0
                while not branch.finished:
                    branch.step(weights)
                since = aside if group else started
                self._keep(seed, group, branch, queries, seconds=time.monotonic() - since)
                started += time.monotonic() - aside  # the base run's clock stands still beside a branch
                yield group
            if not base.finished:
                base.step(ones)

    def _keep(
        self, seed: int, group: Group, run: Training, queries: Sequence[TokenRow], *, seconds: float
    ) -> None:
        file, model = self._file(seed, group), run.trained()
        if self._keep_models:
            with atomic_file(file.with_suffix(".safetensors")) as unfinished:
                save_file(_trained_weights(model, self._language.model), unfinished)
        found = mean_losses(model, queries)
        losses = {query_key(query): float(loss) for query, loss in zip(queries, found, strict=True)}
        stored = _read(file).losses if file.is_file() else {}
        _write(file, _StoredRun(group, stored | losses, seconds))


@dataclass(frozen=True)
class _StoredRun:
    left_out: Group
    losses: dict[str, float]
    seconds: float


def query_key(query: TokenRow) -> str:
    """Hash of a query's tokens and of which of them are explained."""
    content = json.dumps([query.ids, query.start, query.explained]).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def check_mark(
    file: Path, *, recipe: Recipe, language: LanguageModel, rows: Sequence[TokenRow], **more: Any
) -> None:
    """Write what a folder of retrainings belongs to, or compare with what is written.

    Raises:
        ConfigurationError: the folder belongs to another base model, corpus or recipe; the text names which.
    """
    mark = {
        "recipe": recipe.sha256(),
        "base_weights": language.fingerprint.weights_sha256,
        "base_adapter": language.fingerprint.adapter_sha256,
        "corpus": hashlib.sha256("".join(query_key(row) for row in rows).encode()).hexdigest(),
        **more,
    }
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, mark)
        return
    stored = json.loads(file.read_text(encoding="utf-8"))
    other = [name for name, value in mark.items() if stored.get(name) != value]
    if other:
        raise ConfigurationError(
            f"{file.parent}: holds retrainings with another {', '.join(other)}; use a new folder or the old settings"
        )


def _first_step(batches: Sequence[Sequence[int]], group: Group) -> int:
    """The step of the first batch that holds a left-out row; the number of steps for the base run."""
    rows = set(group)
    return next((step for step, batch in enumerate(batches) if rows.intersection(batch)), len(batches))


def _trained_weights(model: Any, base: Any) -> dict[str, torch.Tensor]:
    """Weights that differ from the base model's, by name; a tied weight is named once."""
    before = dict(base.named_parameters())
    return {
        name: weight.detach().cpu().contiguous()
        for name, weight in model.named_parameters()
        if not ((known := before.get(_plain_name(name))) is not None and torch.equal(known, weight))
    }


def _plain_name(name: str) -> str:
    """A parameter's name without what an adapter puts around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", "")


def _write(file: Path, run: _StoredRun) -> None:
    write_arrays(
        file,
        left_out=np.array(run.left_out, dtype=np.int64),
        queries=np.array(list(run.losses), dtype="U32"),
        losses=np.array(list(run.losses.values()), dtype=np.float32),
        seconds=np.float64(run.seconds),
    )


def _read(file: Path) -> _StoredRun:
    with np.load(file, allow_pickle=False) as content:
        losses = dict(zip(content["queries"].tolist(), content["losses"].tolist(), strict=True))
        return _StoredRun(tuple(content["left_out"].tolist()), losses, float(content["seconds"]))
