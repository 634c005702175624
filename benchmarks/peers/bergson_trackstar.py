"""bergson's TrackStar with the library's own parts, in one process on the CPU.

Its collector projects the gradients (16 x 16 per layer, Rademacher: the defaults of its `trackstar` command) and accumulates both second moments; its own functions choose the
mixing share, invert and normalise. The command itself starts worker processes and reads data sets from disk; the parts are called here as the command calls
them, on our tokens. The evaluation's second moment comes from separate queries.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bergson import GradientProcessor, IndexConfig, InMemoryCollector
from bergson.collector.collector import CollectorComputer
from bergson.data import allocate_batches
from bergson.hessians.preconditioner import DensePreconditioner
from bergson.process_grads import normalize_and_aggregate_grads
from bergson.utils.math import compute_lambda
from datasets import Dataset
from torch import Tensor

from benchmarks.peers.sketches import MEETING_POINT, sum_products
from benchmarks.peers.subject import Material, Scored, labels_of, timed, trainable
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.render import TokenRow

_RANK = 16
#: Tokens of one pass; bergson's default.
_BATCH_TOKENS = 2048


def bergson_trackstar(subject: Material) -> dict[str, Scored]:
    """TrackStar scores of all pairs."""
    language = subject.language()
    names = subject.linears(language)
    collect = partial(_collect, trainable(language, names), names)

    def build() -> tuple[DensePreconditioner, dict[str, Tensor]]:
        corpus = collect(subject.rows, subject.scratch / "corpus", moments=True)
        evaluation = collect(subject.teachers, subject.scratch / "evaluation", moments=True)
        inverse = _mixed(corpus.processor, evaluation.processor)
        return inverse, _finish(inverse, corpus.gradients)

    (inverse, corpus), built = timed(build)

    def ask() -> Tensor:
        queries = collect(subject.asked, subject.scratch / "queries", moments=False)
        return sum_products(_finish(inverse, queries.gradients), corpus)

    scores, asked = timed(ask)
    return {
        "bergson TrackStar": Scored(
            scores.numpy(),
            built,
            asked / len(subject.asked),
            4 * sum(one.shape[1] for one in corpus.values()),
            f"version 2.5.1 (pip --no-deps), {_RANK} x {_RANK}, no optimiser state; second moment of the evaluation from the separate queries",
        )
    }


def _collect(
    language: LanguageModel,
    names: Sequence[str],
    rows: tuple[TokenRow, ...],
    folder: Path,
    *,
    moments: bool,
) -> Any:
    """Projected gradients of all rows in the collector, with second moments and their eigenvalues where asked for."""
    config = IndexConfig(run_path=str(folder), projection_dim=_RANK, token_batch_size=_BATCH_TOKENS)
    config.partial_run_path.mkdir(parents=True, exist_ok=True)  # it writes a count of tokens there
    data = Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [labels_of(row) for row in rows],
            "length": [len(row.ids) for row in rows],
        }
    )
    body = language.model.base_model
    inside = next(name for name, one in language.model.named_modules() if one is body)
    collector = InMemoryCollector(
        model=body,
        target_modules={name.removeprefix(f"{inside}.") for name in names},
        cfg=config,
        processor=GradientProcessor(projection_dim=_RANK),
        data=data,
        skip_hessians=not moments,
    )
    batches = allocate_batches([len(row.ids) for row in rows], _BATCH_TOKENS)
    computer = CollectorComputer(
        model=language.model, data=data, collector=collector, batches=batches, cfg=config
    )
    computer.run_with_collector_hooks(desc="gradients")
    return collector


def _mixed(corpus: GradientProcessor, evaluation: GradientProcessor) -> DensePreconditioner:
    """(R + d)^(-1/2) of the mixed second moments."""
    share = compute_lambda(
        query_eigen=evaluation.hessians_eigen,
        index_eigen=corpus.hessians_eigen,
        target_components=MEETING_POINT,
    )
    mixed = {
        name: share * evaluation.hessians[name] + (1.0 - share) * one for name, one in corpus.hessians.items()
    }
    return DensePreconditioner.from_processor(
        GradientProcessor(hessians=mixed, projection_dim=_RANK), power=-0.5
    )


def _finish(inverse: DensePreconditioner, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """Preconditioned gradients of unit norm over all layers."""
    device = next(iter(gradients.values())).device
    done: dict[str, Tensor] = normalize_and_aggregate_grads(
        inverse.apply(gradients), list(gradients), unit_normalize=True, device=device
    )
    return done
