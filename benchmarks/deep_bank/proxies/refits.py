r"""Leave-group-out refits of a reduced LoRA fine-tune: measured effects that scores of groups are held against.

    effect(q, g) = loss of q without group g - loss of q with all rows          (nats; positive: the group made q more likely)
    score(q, g)  = sum_{z in g} score(q, z)

All runs share seed, order and batches; a group is left out by weights of 0. Scores are made at the model of the run with all rows. One file per
run: a stopped benchmark goes on where it was. The groups are the corpus' sources, fixed before anything was looked at.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.work_folder import claim_folder, save_arrays
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.ranking_metrics import spearman_rows
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.estimates import mean_and_interval
from wherefrom.records import sha256_of_json
from wherefrom.retraining.recipe import Lora, Recipe
from wherefrom.retraining.training import fine_tune, mean_losses

#: Ten steps over forty rows; rank, alpha and learning rate are those of the demo's adapter.
RECIPE = Recipe(
    learning_rate=1e-3,
    betas=(0.9, 0.999),
    batch_size=4,
    epochs=1,
    bucket_batches=4,
    lora=Lora(rank=16, alpha=32),
    max_tokens=60,
)
SEED = 7
ALL_ROWS = "all"
BOOTSTRAPS = 2000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RefitPlan:
    """A reduced fine-tune, its queries and its groups."""

    rows: Sequence[TokenRow]
    queries: Sequence[TokenRow]
    #: Group (source) of each row.
    groups: Sequence[str]

    @property
    def names(self) -> list[str]:
        """The groups in the order of their first rows."""
        return list(dict.fromkeys(self.groups))

    def membership(self, names: Sequence[str]) -> npt.NDArray[np.float32]:
        """1 where a row belongs to a group, `[G, N]`."""
        return np.array([[one == name for one in self.groups] for name in names], dtype=np.float32)

    def sha256(self) -> str:
        """Hash of all that decides the runs' numbers."""
        rows = [[one.ids, one.start] for one in (*self.rows, *self.queries)]
        return sha256_of_json([RECIPE.sha256(), SEED, list(self.groups), rows])


def missing_runs(plan: RefitPlan, folder: Path) -> list[str]:
    """Runs that have no file yet, the one with all rows first.

    Raises:
        ConfigurationError: the folder belongs to another plan.
    """
    claim_folder(folder, "plan.sha256", plan.sha256(), holds="refits of other rows or queries")
    return [name for name in (ALL_ROWS, *plan.names) if not _file(folder, name).exists()]


def refit(base: LanguageModel, plan: RefitPlan, name: str, folder: Path) -> float:
    """One fine-tune without the named group (or with all rows); returns its seconds.

    Stores the queries' losses, and for the run with all rows the adapter.
    """
    started = time.monotonic()
    weights = np.array([float(one != name) for one in plan.groups], dtype=np.float32)
    model = fine_tune(base, plan.rows, RECIPE, seed=SEED, weights=weights)
    losses = mean_losses(model, plan.queries)
    if name == ALL_ROWS:
        model.save_pretrained(str(folder / "adapter"))
    seconds = time.monotonic() - started
    save_arrays(_file(folder, name), {"losses": losses, "seconds": seconds})
    return seconds


def measured_effects(plan: RefitPlan, folder: Path) -> tuple[list[str], Values, float]:
    """Groups whose runs are finished, effects `[Q, G]` in nats, and the median seconds of a run.

    Raises:
        ConfigurationError: the run with all rows, or every other one, is missing.
    """
    waiting = set(missing_runs(plan, folder))
    names = [name for name in plan.names if name not in waiting]
    if ALL_ROWS in waiting or len(names) < 3:
        raise ConfigurationError(
            f"{folder} holds {len(names)} refits; at least three and the run with all rows are needed"
        )
    runs = {name: np.load(_file(folder, name), allow_pickle=False) for name in (ALL_ROWS, *names)}
    whole = runs[ALL_ROWS]["losses"].astype(np.float64)
    effects = np.stack([runs[name]["losses"].astype(np.float64) - whole for name in names], axis=1)
    return names, effects, float(np.median([float(one["seconds"]) for one in runs.values()]))


def judge_scores(
    scores: npt.NDArray[np.float32], membership: npt.NDArray[np.float32], effects: Values
) -> dict[str, Any]:
    """Agreement of one method's scores with the measured effects.

    Args:
        scores: `[Q, N]`, positive = proponent.
        membership: `[G, N]`.
        effects: `[Q, G]`, nats.

    Returns:
        Mean over queries of the Spearman correlation over groups with its 95 % bootstrap interval over queries, and the Pearson
        correlation over all pairs after each query's own mean and scale were taken out.
    """
    predicted = scores.astype(np.float64) @ membership.T  # [Q, G]
    each = spearman_rows(predicted, effects)
    mean, *interval = mean_and_interval(each, resamples=BOOTSTRAPS, seed=SEED)
    pooled = float(np.corrcoef(_standard(predicted).ravel(), _standard(effects).ravel())[0, 1])
    return {"spearman": mean, "interval": interval, "pooled": pooled}


def _standard(values: Values) -> Values:
    """Each row with mean 0 and variance 1; a row that does not vary is all 0."""
    centred = values - values.mean(axis=1, keepdims=True)
    scale = centred.std(axis=1, keepdims=True)
    found: Values = np.divide(centred, scale, out=np.zeros_like(centred), where=scale > 0)
    return found


def _file(folder: Path, name: str) -> Path:
    return folder / f"run-{name}.npz"


def describe_plan(plan: RefitPlan) -> str:
    """One line for people."""
    sizes = [len(row.ids) for row in plan.rows]
    facts = {"rows": len(sizes), "tokens": sum(sizes), "longest": max(sizes), "queries": len(plan.queries)}
    return f"refits: {json.dumps(facts)}, {len(plan.names)} groups, {RECIPE.steps(len(sizes))} steps"
