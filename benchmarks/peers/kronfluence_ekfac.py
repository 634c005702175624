"""kronfluence's EK-FAC (arXiv:2308.03296) over the linear layers of the blocks, float32, on our tokens.

Loss and target function (kronfluence's measurement) are the summed loss of a row's explained tokens, as in our own EK-FAC, and damping is its heuristic, a tenth of each
layer's mean eigenvalue. All queries are held at once (`query_gradient_accumulation_steps`), so the corpus is read once and the library is shown at its best.
"""

import logging
from typing import Any

import numpy as np
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn

from benchmarks.peers.subject import IGNORED, Material, Padded, Scored, pad, timed
from wherefrom.attribution.models.render import TokenRow
from wherefrom.evaluation.cost import folder_bytes

_QUERY_BATCH = 20
_BATCH = 16
#: Seed of the labels drawn from the model.
_SEED = 0


class _Rows(torch.utils.data.Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Rows padded to one width: the library stacks them itself."""

    def __init__(self, rows: tuple[TokenRow, ...]) -> None:
        padded: Padded = pad(rows)
        self._parts = (padded.ids, padded.mask, padded.targets)

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask, targets = self._parts
        return ids[index], mask[index], targets[index]


class CompletionLoss(Task):  # type: ignore[misc] # kronfluence ships no types
    """Summed loss of the explained tokens."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        super().__init__()
        self._modules = list(modules)

    def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - the library's interface
        """The loss on the data's labels, or on labels drawn from the model."""
        ids, mask, targets = batch
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.flatten(0, 1)  # [B W, V]
        labels = targets.flatten()
        if sample:
            drawn = torch.multinomial(torch.softmax(logits.detach(), dim=-1), 1)[:, 0]
            labels = torch.where(labels == IGNORED, labels, drawn)
        loss: Tensor = nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return loss

    def compute_measurement(self, batch: Any, model: nn.Module) -> Tensor:
        """The same loss, of the queries."""
        return self.compute_train_loss(batch, model)

    def get_influence_tracked_modules(self) -> list[str]:
        """The layers whose weights are compared."""
        return self._modules

    def get_attention_mask(self, batch: Any) -> Tensor:
        """1 at real positions."""
        mask: Tensor = batch[1]
        return mask


def empirical(subject: Material) -> dict[str, Scored]:
    """Factors on the data's own labels."""
    return {"kronfluence EK-FAC": _run(subject, empirical_fisher=True, name="empirical")}


def sampled(subject: Material) -> dict[str, Scored]:
    """Factors on labels drawn from the model: the Fisher matrix, and the library's default."""
    return {"kronfluence EK-FAC, drawn labels": _run(subject, empirical_fisher=False, name="sampled")}


def _run(subject: Material, *, empirical_fisher: bool, name: str) -> Scored:
    logging.getLogger("kronfluence").setLevel(logging.ERROR)
    torch.manual_seed(_SEED)
    language = subject.language()
    task = CompletionLoss(subject.linears(language))
    analyzer = Analyzer(
        name,
        prepare_model(language.model, task),
        task,
        cpu=True,
        output_dir=str(subject.scratch),
        disable_tqdm=True,
    )
    corpus, queries = _Rows(subject.rows), _Rows(subject.asked)
    _, built = timed(
        lambda: analyzer.fit_all_factors(
            factors_name="factors",
            dataset=corpus,
            per_device_batch_size=_BATCH,
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=empirical_fisher),
            overwrite_output_dir=True,
        )
    )
    steps = -(-len(subject.asked) // _QUERY_BATCH)
    _, asked = timed(
        lambda: analyzer.compute_pairwise_scores(
            scores_name="scores",
            factors_name="factors",
            query_dataset=queries,
            train_dataset=corpus,
            per_device_query_batch_size=_QUERY_BATCH,
            per_device_train_batch_size=_BATCH,
            score_args=ScoreArguments(damping_factor=None, query_gradient_accumulation_steps=steps),
            overwrite_output_dir=True,
        )
    )
    # The measurement is a loss, so kronfluence's product of gradients is positive for proponents, as ours.
    scores = analyzer.load_pairwise_scores("scores")["all_modules"].float().numpy()
    stored = folder_bytes(subject.scratch / name / "factors_factors")
    return Scored(
        scores.astype(np.float32),
        built,
        asked / len(subject.asked),
        stored / len(subject.rows),
        f"version 1.0.1, damping .1 of the mean, {len(task.get_influence_tracked_modules())} layers; stores factors only, the corpus is read again per request",
    )
